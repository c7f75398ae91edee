"""The padded form of a dense text encoder, as fixed graphs need it, and a runner of such graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmembed.errors import ConfigError, ModelLoadError
from mmembed.gpte.encoding import token_batches
from mmembed.gpte.folders import whole_folder
from mmembed.gpte.heads import Projection
from mmembed.gpte.reading import batch_of
from mmembed.gpte.rows import Row
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import TextSettings
from mmembed.gpte.tokenizing import Tokenizing

__all__ = [
    "CompiledTextEncoder",
    "DenseGraph",
    "example_inputs",
    "exported_program",
    "load_compiled",
    "write_compiled",
]

INPUTS = ("input_ids", "attention_mask", "pooled_mask")
_SETTINGS = "text_encoder.json"


class DenseGraph(nn.Module):
    """``(n, L)`` ids and masks to ``(n, d)`` final vectors, padded to the right.

    Raises:
        ConfigError: the encoder does something that has no padded form here.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        settings = encoder.settings
        reasons = {
            f"heads besides dense ({', '.join(settings.heads)})": settings.heads != ("dense",),
            "a decoder's first step": settings.decoder_first,
            "a soft prefix": settings.prefix_tokens,
            "symmetric ALiBi": settings.alibi,
            "a context": settings.context is not None,
            "summary tokens": settings.summary_tokens,
            "experts": settings.experts,
            "a calibration": encoder.calibration is not None,
            "template denoising": any(prompt.denoise for prompt in settings.prompts.values()),
        }
        found = [reason for reason, applies in reasons.items() if applies]
        if found:
            raise ConfigError(f"no graph can be made of {'; '.join(found)}")
        self.model = encoder.base
        self.mixture = encoder.mixture
        self.latent = encoder.latent
        self.poolings = settings.poolings
        self.last_k = settings.pooling_options.get("k", 4)
        layers = [layer for layer in encoder.projections if isinstance(layer, Projection)]
        self.projections = nn.Sequential(*layers)
        self.normalize = settings.normalize

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pooled_mask: Tensor) -> Tensor:
        """``pooled_mask`` marks the tokens to pool, among those of ``attention_mask``."""
        every = self.mixture is not None
        options = {"use_cache": False} if getattr(self.model.config, "use_cache", None) else {}
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            output_hidden_states=every,
            **options,
        )
        hidden = output.last_hidden_state
        if self.mixture is not None:
            shape = hidden.shape
            mixed = self.mixture([layer.flatten(0, 1) for layer in output.hidden_states])
            hidden = mixed.view(shape)
        if self.latent is not None:
            hidden = self.latent(hidden.flatten(0, 1)).view(hidden.shape)
        hidden = hidden.float()
        parts = [self._pool(name, hidden, pooled_mask) for name in self.poolings]
        dense = self.projections(torch.cat(parts, dim=1)).float()
        return F.normalize(dense, dim=1) if self.normalize else dense

    def _pool(self, name: str, hidden: Tensor, mask: Tensor) -> Tensor:
        if name == "max":
            return hidden.masked_fill(mask.unsqueeze(-1) == 0, float("-inf")).amax(dim=1)
        weights = self._weights(name, mask).to(hidden.dtype)
        total = torch.einsum("nl,nld->nd", weights, hidden)
        count = weights.sum(dim=1, keepdim=True)
        return total / (count.sqrt() if name == "mean_sqrt" else count)

    def _weights(self, name: str, mask: Tensor) -> Tensor:
        """``(n, L)`` weights whose mean is the pooling of that name."""
        rank = mask.cumsum(dim=1) * mask  # 1, 2, ... over the pooled tokens, 0 elsewhere
        last = mask.sum(dim=1, keepdim=True)
        if name == "first":
            return rank == 1
        if name == "last":
            return (rank == last) & (rank > 0)
        if name == "last_k":
            return (rank > last - self.last_k) & (rank > 0)
        if name == "position_weighted":
            return torch.arange(1, mask.shape[1] + 1, device=mask.device) * mask
        return mask


def exported_program(encoder: TextEncoder) -> torch.export.ExportedProgram:
    """The padded form as PyTorch's own graph, with batch and length left open."""
    was_training = encoder.training
    graph = DenseGraph(encoder.eval()).eval()
    sizes = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    try:
        with torch.no_grad():
            return torch.export.export(
                graph, example_inputs(encoder.device), dynamic_shapes=(sizes, sizes, sizes)
            )
    finally:
        encoder.train(was_training)


def example_inputs(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, and masks that differ in every way that masks can."""
    ids = torch.full((2, 7), 5, dtype=torch.int64, device=device)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    pooled = mask.clone()  # a tensor of its own: inputs that are one tensor become one input
    pooled[:, 0] = 0
    return ids, mask, pooled


class CompiledTextEncoder:
    """Texts to final dense vectors through a compiled graph, without torch in the forward.

    Args:
        settings: the encoder's settings; their ``max_tokens`` is set.
        tokenizing: makes rows.
        run: named ``(n, L)`` int64 arrays to ``(n, d)`` float32.
    """

    def __init__(
        self,
        settings: TextSettings,
        tokenizing: Tokenizing,
        run: Callable[[dict[str, np.ndarray]], np.ndarray],
    ) -> None:
        self.settings = settings
        self.tokenizing = tokenizing
        self._run = run

    def encode(
        self,
        texts: Sequence[str],
        *,
        role: str | None = None,
        instruction: str | None = None,
        batch_tokens: int = 4096,
    ) -> np.ndarray:
        """``(n, d)`` float32 vectors in the order of the texts.

        Raises:
            InputError: as :meth:`mmembed.gpte.text_encoder.TextEncoder.tokenize`.
        """
        prompt = self.settings.prompt(role)
        rows = self.tokenizing.rows(prompt, texts, [instruction] * len(texts))
        pad = self.tokenizing.tokenizer.pad_token_id or 0
        found: dict[int, np.ndarray] = {}
        for part in token_batches(rows, batch_tokens):
            vectors = self._run(padded_inputs([rows[i] for i in part], pad))
            found.update(zip(part, vectors, strict=True))
        return np.stack([found[i] for i in range(len(rows))]) if rows else np.empty((0, 0))


def padded_inputs(rows: Sequence[Row], pad_id: int) -> dict[str, np.ndarray]:
    """The graph's inputs for these rows, padded to the right."""
    longest = max(row.tokens for row in rows)
    ids = np.full((len(rows), longest), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : row.tokens] = row.input_ids
        mask[i, : row.tokens] = 1
    pooled = mask.copy()
    left_out = batch_of(rows, "cpu").spans["unpooled"].numpy()
    pooled[mask.astype(bool)] = ~left_out
    return dict(zip(INPUTS, (ids, mask, pooled), strict=True))


def write_compiled(encoder: TextEncoder, folder: Path, write_graph: Callable[[Path], None]) -> None:
    """Write tokenizer and settings, and the graph by ``write_graph(folder)``, or nothing."""
    settings = replace(encoder.settings, max_tokens=encoder.max_tokens)
    with whole_folder(folder) as partial:
        encoder.tokenizer.save_pretrained(partial)
        (partial / _SETTINGS).write_text(settings.to_json(), encoding="utf-8")
        write_graph(partial)


def load_compiled(folder: Path, graph: str) -> tuple[TextSettings, Tokenizing, Path]:
    """Settings, tokenisation and graph file of an exported folder.

    Raises:
        ModelLoadError: a file is missing.
    """
    from transformers import AutoTokenizer

    for name in (_SETTINGS, graph):
        if not (folder / name).exists():
            raise ModelLoadError(f"{folder / name} is missing")
    settings = TextSettings.from_json((folder / _SETTINGS).read_text(encoding="utf-8"))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    end_id = None
    if settings.end_token is not None:
        end_id = tokenizer.convert_tokens_to_ids(settings.end_token)
    assert settings.max_tokens is not None
    return settings, Tokenizing(tokenizer, settings.max_tokens, end_id), folder / graph
