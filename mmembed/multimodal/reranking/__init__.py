"""Training models that read a query and a document together."""
