"""Memory and time of contrastive losses: ours, dense autograd, sentence-transformers.

Each measurement runs in a process of its own, forward and backward on precomputed embeddings, and
reports the growth of the peak resident memory over the inputs. Ratios compare medians of runs of
one call, in which the cases take turns; a call with --only keeps what others found of the rest.
GISTEmbedLoss holds every pair's product of vectors, and would need 30 GiB for 1024 rows: it is
compared at 768 rows, and at 1024 its cached form, which holds 32 rows' products at a time.

    python benchmarks/score_engine.py            # the committed numbers
    python benchmarks/score_engine.py --rows 4096 --gist-rows 256 --repeats 1
    python benchmarks/score_engine.py --only tiled_vs_dense
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from typing import Any

from machine import RESULTS, facts, write_result

DIM = 768
GIST_ROWS = 768  # of GISTEmbedLoss, which needs 17 GiB for them


def _inputs(rows: int) -> Any:
    import torch
    from torch.nn import functional as F

    torch.manual_seed(0)
    query = F.normalize(torch.randn(rows, DIM), dim=1)
    documents = F.normalize(query + 0.05 * torch.randn(rows, DIM), dim=1)
    return query.requires_grad_(), documents.requires_grad_()


def _dense(rows: int) -> Callable[[], Any]:
    """The textbook form on unit vectors: one matrix and a cross entropy."""
    import torch
    from torch.nn import functional as F

    query, documents = _inputs(rows)
    labels = torch.arange(rows)
    return lambda: F.cross_entropy(query @ documents.T * 20.0, labels)


def _tiled(rows: int) -> Callable[[], Any]:
    """The same loss of the same unit vectors by the engine."""
    import torch
    from torch.nn import functional as F

    from mmembed.gpte.score_engine import Block, score_loss

    query, documents = _inputs(rows)

    def loss(scores: Any, tile: slice, _: Any) -> Any:
        labels = torch.arange(tile.start, tile.stop)
        return F.cross_entropy(scores[0] * 20.0, labels, reduction="none")

    return lambda: score_loss(loss, [Block(query, documents)])[0] / rows


def _infonce(rows: int) -> Callable[[], Any]:
    """Our objective, normalisation included."""
    from mmembed.gpte.objectives import InfoNCE
    from mmembed.gpte.protocols import Columns, Outputs

    columns = Columns(*(Outputs(dense=x) for x in _inputs(rows)))
    return lambda: InfoNCE()(columns).total


def _infonce_st(rows: int) -> Callable[[], Any]:
    """MultipleNegativesRankingLoss, normalisation included."""
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from torch import nn

    inputs = list(_inputs(rows))
    oracle = MultipleNegativesRankingLoss(nn.Identity())
    return lambda: oracle.compute_loss_from_embeddings(inputs, None)


def _matryoshka(rows: int) -> Callable[[], Any]:
    """Our objective on five prefixes."""
    from mmembed.gpte.objectives import InfoNCE, Matryoshka
    from mmembed.gpte.protocols import Columns, Outputs

    columns = Columns(*(Outputs(dense=x) for x in _inputs(rows)))
    loss = Matryoshka(InfoNCE(), (768, 512, 256, 128, 64))
    return lambda: loss(columns).total


def _lookup() -> Any:
    from torch import nn

    class Lookup(nn.Module):
        def forward(self, features: Any) -> Any:
            return {"sentence_embedding": features["x"]}

        def get_embedding_dimension(self) -> int:
            return DIM

    return Lookup()


def _matryoshka_st(rows: int) -> Callable[[], Any]:
    """MatryoshkaLoss on five prefixes."""
    import torch
    from sentence_transformers.sentence_transformer.losses import (
        MatryoshkaLoss,
        MultipleNegativesRankingLoss,
    )

    model = _lookup()
    inputs = [{"x": x} for x in _inputs(rows)]
    oracle = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), [768, 512, 256, 128, 64])
    return lambda: oracle(inputs, torch.zeros(rows))


def _guides(rows: int) -> Any:
    import torch

    torch.manual_seed(1)
    return [torch.randn(rows, 384) for _ in range(2)]


def _gist(rows: int) -> Callable[[], Any]:
    """Our InfoNCE with a guide mask on q-d, q-q and d-d."""
    from mmembed.gpte.objectives import GuideMask, InfoNCE
    from mmembed.gpte.protocols import Columns, Outputs

    guides = [Outputs(dense=g) for g in _guides(rows)]
    columns = Columns(
        *(Outputs(dense=x) for x in _inputs(rows)),
        guide=dict(zip(("query", "positive"), guides, strict=True)),
    )
    loss = InfoNCE(directions=("q2d", "q2q", "d2d"), masks=(GuideMask(),))
    return lambda: loss(columns).total


def _gist_st(rows: int) -> Callable[[], Any]:
    """GISTEmbedLoss with the guide's vectors looked up."""
    from sentence_transformers.sentence_transformer.losses import GISTEmbedLoss
    from torch import nn

    pairs = zip(_inputs(rows), _guides(rows), strict=True)
    inputs = [{"x": x, "guide": g} for x, g in pairs]
    oracle = GISTEmbedLoss.__new__(GISTEmbedLoss)  # its constructor wants two tokenizers
    nn.Module.__init__(oracle)
    oracle.model = _lookup()
    oracle.guide = lambda features: {"sentence_embedding": features["guide"]}
    oracle.must_retokenize = oracle.gather_across_devices = False
    oracle.temperature, oracle.margin, oracle.margin_strategy = 0.05, 0.0, "absolute"
    oracle.similarity_fct = nn.CosineSimilarity(dim=-1)
    oracle.contrast_anchors = oracle.contrast_positives = True
    oracle.cross_entropy_loss = nn.CrossEntropyLoss()
    return lambda: oracle(inputs, None)


def _gist_cached_st(rows: int) -> Callable[[], Any]:
    """CachedGISTEmbedLoss on precomputed vectors: loss and gradients, 32 rows at a time."""
    import torch
    from sentence_transformers.sentence_transformer.losses import CachedGISTEmbedLoss
    from torch import nn

    oracle = CachedGISTEmbedLoss.__new__(CachedGISTEmbedLoss)  # its constructor wants tokenizers
    nn.Module.__init__(oracle)
    oracle.mini_batch_size, oracle.show_progress_bar = 32, False
    oracle.gather_across_devices = False
    oracle.temperature, oracle.margin, oracle.margin_strategy = 0.05, 0.0, "absolute"
    oracle.similarity_fct = nn.CosineSimilarity(dim=-1)
    oracle.contrast_anchors = oracle.contrast_positives = True
    oracle.cross_entropy_loss = nn.CrossEntropyLoss()
    vectors = [[x.detach().requires_grad_()] for x in _inputs(rows)]
    guides = [[g] for g in _guides(rows)]

    def loss() -> torch.Tensor:
        found: torch.Tensor = oracle.calculate_loss_and_cache_gradients(vectors, guides)[0]
        return found

    return loss


CASES = {
    "dense": _dense,
    "tiled": _tiled,
    "infonce": _infonce,
    "infonce_st": _infonce_st,
    "matryoshka": _matryoshka,
    "matryoshka_st": _matryoshka_st,
    "gist": _gist,
    "gist_st": _gist_st,
    "gist_large": _gist,
    "gist_cached_st": _gist_cached_st,
}
SLOW = ("gist_st", "gist_cached_st", "matryoshka_st")  # minutes each: measured once
RATIOS = {
    "tiled_vs_dense": ("tiled", "dense"),
    "infonce_vs_st": ("infonce", "infonce_st"),
    "matryoshka_vs_st": ("matryoshka", "matryoshka_st"),
    "gist_vs_st": ("gist", "gist_st"),
    "gist_vs_cached_st": ("gist_large", "gist_cached_st"),
}


def measure(case: str, rows: int) -> dict[str, float]:
    """Time and memory growth of one forward and backward, in this process."""
    CASES[case](8)().backward()  # imports, and the first call of every kernel
    loss = CASES[case](rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, busy = time.perf_counter(), time.process_time()
    value = loss()
    value.backward()
    seconds, cpu = time.perf_counter() - start, time.process_time() - busy
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "extra_mib": grown / 1024,
        "loss": float(value.detach()),
    }


def main() -> None:
    """Measure every case in its own process and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=16384)
    parser.add_argument("--gist-rows", type=int, default=GIST_ROWS)
    parser.add_argument("--large-gist-rows", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=RATIOS, nargs="*", help="ratios to measure anew")
    parser.add_argument("--case", choices=CASES, help="measure one case in this process")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case, options.rows)))
        return

    wanted = options.only or list(RATIOS)
    cases = [case for name in wanted for case in RATIOS[name]]
    runs: dict[str, list[dict[str, float]]] = {case: [] for case in cases}
    sizes = dict.fromkeys(cases, options.rows)
    sizes |= dict.fromkeys(("gist", "gist_st"), options.gist_rows)
    sizes |= dict.fromkeys(("gist_large", "gist_cached_st"), options.large_gist_rows)
    for number in range(options.repeats):
        for case in cases:
            if number and case in SLOW:
                continue
            command = [sys.executable, __file__, "--case", case, "--rows", str(sizes[case])]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            runs[case].append(json.loads(done.stdout))
            print(case, runs[case][-1], flush=True)
    file = RESULTS / "score_engine.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if options.only else {}
    found = kept.get("cases", {})
    for case, some in runs.items():
        found[case] = {
            "rows": sizes[case],
            **{key: round(statistics.median(r[key] for r in some), 4) for key in some[0]},
            "runs": len(some),
            "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
            "date": date.today().isoformat(),
        }
    ratios = kept.get("ratios", {})
    for name in wanted:
        ours, theirs = RATIOS[name]
        ratios[name] = {
            key: round(found[ours][key] / found[theirs][key], 4)
            for key in ("seconds", "cpu_seconds", "extra_mib")
        }
    print(json.dumps(ratios, indent=2))
    write_result(
        "score_engine",
        {
            "what": "forward and backward on precomputed float32 embeddings, median of runs",
            "dim": DIM,
            "cases": found,
            "ratios": ratios,
            "machine": facts("torch", "sentence-transformers", "mmembed"),
        },
    )


if __name__ == "__main__":
    main()
