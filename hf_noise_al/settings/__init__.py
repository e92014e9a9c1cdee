"""What the user sets: the arguments of a run, from recipes and from flags.

Wrong settings are refused here, with the line of the recipe.
"""
