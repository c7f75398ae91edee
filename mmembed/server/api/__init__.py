"""The HTTP API for programs: embeddings and reranking, in the forms that clients already speak."""
