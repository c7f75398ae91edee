"""Two towers as one backbone: words and pictures each read alone, in one space."""
