"""Text and files of any kind: written in one step, read with line numbers, shown without control characters.

Nothing here knows of rows that are labeled, or of models.
"""
