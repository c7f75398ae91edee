"""The core: general-purpose text embeddings, from token states to training."""
