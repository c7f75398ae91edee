"""Rows whose items are of any modality: read, checked, and made into batches."""
