"""The command `hf-noise-al`: one file for each verb, and what they share.

Here, and only here, trainer and tasks meet.
"""
