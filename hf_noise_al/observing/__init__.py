"""Every row of a data set through the model once, on one process or many.

Rows are put into batches first and dealt to processes second, so that numbers and picks are the same on any number.
"""
