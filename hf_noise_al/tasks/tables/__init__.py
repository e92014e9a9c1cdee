"""Rows of a table to a number or a class.

Which columns are inputs, how they become numbers, and a perceptron for them.
"""
