"""codeembed: embed and search source code."""

__version__ = "0.1.0"
