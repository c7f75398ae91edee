"""Making training data: with encoders, and with a language model behind an endpoint."""
