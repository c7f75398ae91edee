"""Rewriting of source code by reversible byte edits: scouts find sites, operations edit them."""
