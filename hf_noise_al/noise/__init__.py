"""The mathematics of noise stability: noise on the weights, and how far outputs move under it.

Finite differences are the published form, `gradient_sketch` the cheap one.
"""
