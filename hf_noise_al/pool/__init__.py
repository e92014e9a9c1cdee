"""Which rows there are, which of them are labeled, and what a label is.

Every answer, cell and class name becomes a label by the rules that stand here.
"""
