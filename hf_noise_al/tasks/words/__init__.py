"""Sentences as lists of words, each with a tag of its own.

Tokens of every word, tags as labels, metrics of entities.
"""
