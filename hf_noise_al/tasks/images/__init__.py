"""Images to classes.

Reading and resizing them, and small networks for small ones.
"""
