"""Write a trained text encoder for other runtimes."""
