"""Long documents: late chunking, trees of vectors, and what a late-interaction match rests on."""

from __future__ import annotations

from mmembed.documents.explain import Explanation, TokenMatch, explain, explain_tokens
from mmembed.documents.late_chunking import late_chunks
from mmembed.documents.tree import Node, document_tree, search_trees, sections_of

__all__ = [
    "Explanation",
    "Node",
    "TokenMatch",
    "document_tree",
    "explain",
    "explain_tokens",
    "late_chunks",
    "search_trees",
    "sections_of",
]
