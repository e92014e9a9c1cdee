"""Random projections of weight gradients, one row per example, from one backward pass per output direction.

Taps see what comes back to each layer; layer rules say what of it is a weight gradient.
"""
