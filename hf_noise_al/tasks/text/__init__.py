"""Sentences and pairs of sentences.

Tokens, batches, and the tasks of classes and of numbers.
"""
