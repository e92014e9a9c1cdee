"""What is looked at when a model sees a batch, as one row of numbers per example.

An observable is a function of model and inputs; examples with parts, such as words or pixels, have their own.
"""
