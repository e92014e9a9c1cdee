"""From rows of numbers to the indices of the chosen ones, best first.

Pure functions of tensors and a generator: nothing here knows of models.
"""
