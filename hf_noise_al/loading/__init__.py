"""From what the arguments name to a data set, a processor and a model.

From the Hub, from folders, from csv and JSON files.
"""
