"""Measuring code embedders on local sets."""
