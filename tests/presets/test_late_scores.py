"""Scores of late interaction equal those of pylate and of transformers, on the same vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmembed.search.maxsim import maxsim


def token_vectors(counts: list[int], seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    found = [torch.randn(count, 128, generator=generator) for count in counts]
    return [torch.nn.functional.normalize(one, dim=1) for one in found]


QUERIES, DOCUMENTS = token_vectors([5, 17, 32], 1), token_vectors([40, 3, 257, 90], 2)


OURS = maxsim([q.numpy() for q in QUERIES], [d.numpy() for d in DOCUMENTS])


# One document at a time: padding counts as a similarity of zero in both, and beats negative ones.
@pytest.mark.parity
def test_scores_are_pylate_s() -> None:
    scores = pytest.importorskip("pylate.scores", reason="pylate is not installed")
    for i, query in enumerate(QUERIES):
        for j, document in enumerate(DOCUMENTS):
            theirs = scores.colbert_scores(query.unsqueeze(0), document.unsqueeze(0))
            np.testing.assert_allclose(OURS[i, j], theirs.item(), rtol=1e-5, atol=1e-5)


@pytest.mark.parity
def test_scores_are_those_of_transformers() -> None:
    from transformers import ColQwen2Processor

    for j, document in enumerate(DOCUMENTS):
        theirs = ColQwen2Processor.score_retrieval(
            None, QUERIES, [document], output_dtype=torch.float32
        )
        np.testing.assert_allclose(OURS[:, j], theirs[:, 0].numpy(), rtol=1e-5, atol=1e-5)
