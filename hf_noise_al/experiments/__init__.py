"""Runs compared: learning curves, their means and intervals, pictures of them.

Reads the files that runs leave, and never trains.
"""
