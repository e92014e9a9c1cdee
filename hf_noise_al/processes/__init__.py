"""A run on several processes: which rows, and which part of each weight, a process holds.

Also what to say when one of them is gone.
"""
