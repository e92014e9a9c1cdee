"""Images to a class for every pixel.

Masks as labels, a head for backbones, metrics from a confusion matrix.
"""
