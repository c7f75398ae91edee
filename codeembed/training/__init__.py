"""Stages and heads that recipes of code models add to the trainer of :mod:`mmembed.gpte`."""
