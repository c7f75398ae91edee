"""The HTTP server: search over an index, its media, and the page that shows both."""
