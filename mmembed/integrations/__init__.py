"""The models as other libraries know them; each file needs its library, and nothing else does."""
