"""Training pairs mined from source code and its history."""
