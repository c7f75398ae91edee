"""What a user may pass in, and how it is decoded."""
