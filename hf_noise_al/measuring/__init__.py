"""How good the model of a round is, on how many rows that was measured, and its 95 % interval.

Metrics themselves belong to the tasks.
"""
