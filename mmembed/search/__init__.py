"""Stores, filters and the index over them."""
