"""The parts of a round that `ActiveTrainer` puts in order.

Each takes the trainer that it works for, and none of them decides what comes next.
"""
