"""Synthesis against a local server that speaks the chat protocol, and local encoders."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmembed.cli import app
from mmembed.commands.output import run
from mmembed.errors import ConfigError, InputError
from mmembed.synthesis.endpoint import BudgetError, Endpoint, EndpointError
from mmembed.synthesis.filtering import consistent
from mmembed.synthesis.methods import (
    METHODS,
    InPars,
    InstructedNegatives,
    Judge,
    MultilingualImages,
    PageQueries,
    Promptagator,
    TaskAndQuery,
    TripleOfTask,
)
from mmembed.synthesis.running import make_rows
from mmembed.synthesis.triples import picture_pairs


class Server:
    """Answers with what ``answer`` makes of the last message; ``statuses`` come first."""

    def __init__(self) -> None:
        self.answer: Callable[[str], str] = lambda text: f"echo of {text[-20:]}"
        self.statuses: list[int] = []
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with server.lock:
                    status = server.statuses.pop(0) if server.statuses else 200
                    if status == 200:
                        server.bodies.append(body)
                    server.keys.add(self.headers["authorization"])
                content = body["messages"][-1]["content"]
                text = content if isinstance(content, str) else content[-1]["text"]
                made = {"choices": [{"message": {"content": server.answer(text)}}]}
                found = json.dumps(made | {"usage": {"total_tokens": 10}}).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(found)))
                self.send_header("retry-after", "0")
                self.end_headers()
                self.wfile.write(found)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.http.shutdown()
    found.http.server_close()


def endpoint(server: Server, folder: Path, **options: Any) -> Endpoint:
    return Endpoint(server.url, "small", folder / "answers.jsonl", **options)


def said(*texts: str) -> list[Any]:
    return [[{"role": "user", "content": text}] for text in texts]


def test_answers_come_in_order_and_are_kept(server: Server, tmp_path: Path) -> None:
    server.answer = lambda text: text.upper()
    questions = said(*(f"q{i}" for i in range(40)))
    expected = [f"Q{i}" for i in range(40)]
    assert list(endpoint(server, tmp_path, concurrency=4).ask(questions)) == expected
    assert len(server.bodies) == 40
    again = endpoint(server, tmp_path)
    assert list(again.ask(questions)) == expected
    assert len(server.bodies) == 40  # nothing is paid for twice
    assert again.spent == 400
    other = Endpoint(server.url, "large", tmp_path / "answers.jsonl")
    assert list(other.ask(questions[:1])) == ["Q0"]
    assert len(server.bodies) == 41  # another model is another question


def test_what_may_pass_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [429, 503, 500]
    assert list(endpoint(server, tmp_path, concurrency=1).ask(said("x"))) == ["echo of x"]
    server.statuses = [500, 500]
    (failed,) = endpoint(server, tmp_path, retries=1).ask(said("y"))
    assert isinstance(failed, EndpointError)
    assert "status 500, after 2 tries" in str(failed)
    server.statuses = [401]
    refused, good = endpoint(server, tmp_path, concurrency=1).ask(said("z", "w"))
    assert "status 401" in str(refused)
    assert good == "echo of w"


def test_the_key_comes_from_the_environment(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    list(endpoint(server, tmp_path, key_variable="MY_KEY").ask(said("x")))
    assert server.keys == {"Bearer secret"}
    assert "secret" not in (tmp_path / "answers.jsonl").read_text()


def test_a_budget_ends_the_run_and_keeps_what_was_answered(server: Server, tmp_path: Path) -> None:
    tight = endpoint(server, tmp_path, budget=35, concurrency=1)
    with pytest.raises(BudgetError, match="40 of 35"):
        list(tight.ask(said(*map(str, range(9)))))
    assert len(server.bodies) == 4
    with pytest.raises(BudgetError):
        list(endpoint(server, tmp_path, budget=40).ask(said(*map(str, range(9)))))
    assert len(list(endpoint(server, tmp_path).ask(said(*map(str, range(9)))))) == 9
    assert len(server.bodies) == 9


def test_a_killed_run_loses_its_last_line_alone(server: Server, tmp_path: Path) -> None:
    list(endpoint(server, tmp_path).ask(said("a", "b")))
    file = tmp_path / "answers.jsonl"
    whole = file.read_text()
    file.write_text(whole[:-9])
    list(endpoint(server, tmp_path).ask(said("a", "b")))
    assert len(server.bodies) == 3
    file.write_text("nonsense\n" + whole)
    with pytest.raises(ConfigError, match=r"answers\.jsonl:1"):
        endpoint(server, tmp_path)
    with pytest.raises(ConfigError, match="give a URL"):
        Endpoint("host:8000", "m", file)


def picture(folder: Path) -> str:
    path = folder / "page.png"
    Image.new("RGB", (20, 30), "red").save(path)
    return str(path)


def test_methods_make_rows_of_answers(tmp_path: Path) -> None:
    image = picture(tmp_path)
    passage = {"text": "Basalt is a rock."}
    cases: list[tuple[Any, dict[str, Any], str, list[dict[str, Any]]]] = [
        (InPars(), passage, 'Query: "what is basalt"\nmore', [{"query": "what is basalt"}]),
        (Promptagator([("a", "b")]), passage, "what is basalt", [{"query": "what is basalt"}]),
        (
            TaskAndQuery(),
            passage,
            'Sure: {"task": "find facts", "query": "rocks"}',
            [{"query": "rocks", "instruction": "find facts"}],
        ),
        (
            TripleOfTask(),
            {"task": "t"},
            '{"user_query": "q", "positive_document": "p", "hard_negative_document": "n"}',
            [{"query": "q", "positive": "p", "negatives": ["n"], "instruction": "t"}],
        ),
        (
            InstructedNegatives(),
            {"query": "q", "positive": "p"},
            '{"instruction": "i", "negatives": ["n", "p", 3]}',
            [{"query": "q", "positive": "p", "negatives": ["n"], "instruction": "i"}],
        ),
        (Judge(), {"query": "q", "text": "d"}, "Score: 2", [{"query": "q", "score": 2 / 3}]),
        (
            PageQueries(2),
            {"image": image},
            '["a?", "b?", "c?"]',
            [{"query": "a?", "positive": {"image": image}}, {"query": "b?"}],
        ),
        (
            MultilingualImages(),
            {"image": image},
            '{"query": "q", "positive": "p", "hard_negative": "n"}',
            [{"query": {"image": image, "text": "q"}, "positive": "p", "negatives": ["n"]}],
        ),
    ]
    assert {method.name for method, *_ in cases} == set(METHODS)
    for method, seed, answer, expected in cases:
        assert method.question(seed)[-1]["role"] == "user"
        rows = method.rows(seed, answer)
        assert len(rows) == len(expected)
        for row, wanted in zip(rows, expected, strict=True):
            assert wanted.items() <= row.items()
        assert method.rows(seed, "") == []
        assert method.rows(seed, "{broken") in (
            [],
            [{"query": "{broken", "positive": seed.get("text")}],
        )
        with pytest.raises(InputError, match="every seed needs it"):
            method.question({})
    assert Judge().rows({"query": "q", "text": "d"}, "17") == []
    assert TripleOfTask.tasks('1. ["a", "b", 3]') == ["a", "b"]


def test_pictures_are_sent_and_others_refused(tmp_path: Path) -> None:
    content = PageQueries().question({"image": picture(tmp_path)})[0]["content"]
    assert content[0]["image_url"]["url"].startswith("data:image/png;base64,")
    (tmp_path / "a.png").write_text("words")
    with pytest.raises(InputError, match="is no picture"):
        PageQueries().question({"image": str(tmp_path / "a.png")})
    with pytest.raises(InputError, match="cannot be read"):
        PageQueries().question({"image": str(tmp_path / "none.png")})


def test_rows_are_written_whole_and_resumed(server: Server, tmp_path: Path) -> None:
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text("".join(json.dumps({"text": f"passage {i}"}) + "\n" for i in range(6)))
    into = tmp_path / "rows.jsonl"
    with pytest.raises(BudgetError):
        make_rows(InPars(), endpoint(server, tmp_path, budget=20, concurrency=1), seeds, into)
    assert not into.exists()
    made = make_rows(InPars(), endpoint(server, tmp_path), seeds, into)
    assert (made.seeds, made.rows, made.failed) == (6, 6, 0)
    assert len(server.bodies) == 6
    rows = [json.loads(line) for line in into.read_text().splitlines()]
    assert [row["positive"] for row in rows] == [f"passage {i}" for i in range(6)]
    seeds.write_text('{"text": "good"}\n{"title": "bad"}\n')
    with pytest.raises(InputError, match=r"seeds\.jsonl:2.*no 'text'"):
        make_rows(InPars(), endpoint(server, tmp_path), seeds, into)
    seeds.write_text("[1]\n")
    with pytest.raises(InputError, match=r"seeds\.jsonl:1.*no JSON object"):
        make_rows(InPars(), endpoint(server, tmp_path), seeds, into)
    assert len(into.read_text().splitlines()) == 6


def test_the_command(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeds, into = tmp_path / "seeds.jsonl", tmp_path / "rows.jsonl"
    seeds.write_text('{"text": "a passage"}\n')
    line = [str(seeds), str(into), "--endpoint", server.url, "--model", "m"]
    assert run(app, ["synthesize", "inpars", *line, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 1
    assert run(app, ["synthesize", "inpar", *line]) == 2
    assert "did you mean 'inpars'" in capsys.readouterr().err
    assert run(app, ["synthesize", "promptagator", *line]) == 2
    examples = tmp_path / "examples.jsonl"
    examples.write_text('{"text": "t", "query": "q"}\n')
    more = ["--examples", str(examples)]
    assert run(app, ["synthesize", "promptagator", *line, *more]) == 0
    assert (
        "Passage: t\nQuery: q\n\nPassage: a passage" in server.bodies[-1]["messages"][0]["content"]
    )


class Letters:
    """Vectors of letters: texts are near that share them."""

    def encode_query(self, texts: list[str], **_: Any) -> np.ndarray[Any, Any]:
        rows = np.array([[t.count(c) for c in "abcdefghij"] for t in texts], np.float32) + 1e-3
        found: np.ndarray[Any, Any] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return found

    encode_document = encode_query


def test_what_a_retriever_does_not_find_again_is_left_out() -> None:
    model: Any = Letters()
    rows = [
        {"query": "aa", "positive": "aab"},
        {"query": "cc", "positive": "ddd"},
        {"query": "dd", "positive": "ddd"},
        {"query": "ee", "positive": "eec"},
    ]
    assert consistent(rows, model) == [rows[0], rows[2], rows[3]]
    assert consistent(rows, model, rank=4) == rows
    assert consistent([], model) == []


def test_picture_pairs_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    vectors = {}
    for name in ("meaning", "pattern", "caption"):
        rows = rng.normal(size=(30, 4)).astype(np.float32)
        vectors[name] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    vectors["pattern"][7] = vectors["pattern"][3]  # a duplicate
    pairs = list(picture_pairs(vectors, bands={"caption": (0.8, 0.9)}, neighbours=29))
    assert {pair.similarity for pair in pairs} == set(vectors)
    for pair in pairs:
        scores = vectors[pair.similarity] @ vectors[pair.similarity][pair.query]
        low, high = (0.8, 0.9) if pair.similarity == "caption" else (0.5, 0.95)
        inside = [i for i in range(30) if i != pair.query and low <= scores[i] <= high]
        assert pair.target == max(inside, key=lambda i: scores[i])
        assert pair.negatives[0] == pair.query
        assert pair.target not in pair.negatives
        assert len(pair.negatives) == len(set(pair.negatives)) == 4
        assert all(scores[i] <= high for i in pair.negatives[1:])
    with pytest.raises(ConfigError, match="different numbers"):
        list(picture_pairs({"a": vectors["meaning"], "b": vectors["pattern"][:3]}))
