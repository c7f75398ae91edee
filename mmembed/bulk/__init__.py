"""Embedding of very many items: shards that are done once, whatever dies meanwhile."""
