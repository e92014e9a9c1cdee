"""Files in and out between a run and the people who label.

Query files ask, lines of labels answer.
"""
