"""Training data: sources read row by row, tokenised once, and handed out as batches."""
