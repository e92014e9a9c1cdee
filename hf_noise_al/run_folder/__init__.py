"""What a run keeps on the disk: labels, state, history, weights, fingerprint and model card.

A run that was killed goes on from it as if nothing had happened.
"""
