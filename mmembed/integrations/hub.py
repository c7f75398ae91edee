"""Hugging Face: push a model with its card. ``Embedder.from_pretrained`` pulls one by its id."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmembed.errors import ConfigError

if TYPE_CHECKING:
    from mmembed.embedder import Embedder

__all__ = ["model_card", "push_to_hub"]

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def push_to_hub(
    model: Embedder,
    repo: str,
    *,
    license: str,
    languages: Sequence[str] = ("en",),
    base_model: str | None = None,
    private: bool = True,
    token: str | None = None,
) -> str:
    """Upload weights, configuration and a model card in one commit.

    Args:
        model: what ``save_pretrained`` writes.
        repo: ``owner/name``; made if it is not there.
        license: an identifier of the hub, such as ``apache-2.0``; asked for, because nobody else
            can know it.
        languages: of the texts it was trained on, as ISO codes.
        base_model: the id of the model it was made from.
        private: whether a new repository is seen by its owner only.
        token: of the hub; the one that ``hf auth login`` has kept by default.

    Returns:
        The URL of the commit.

    Raises:
        ConfigError: the name or the licence is empty or odd.
    """
    if not _REPO.fullmatch(repo):
        raise ConfigError(f"repository {repo!r}: give owner/name")
    card = model_card(model, repo, license=license, languages=languages, base_model=base_model)
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    api.create_repo(repo, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        (Path(folder) / "README.md").write_text(card, encoding="utf-8")
        done = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message="Upload an mmembed model"
        )
    return str(done)


def model_card(
    model: Embedder,
    repo: str,
    *,
    license: str,
    languages: Sequence[str] = ("en",),
    base_model: str | None = None,
) -> str:
    """A card in the hub's form: how to load it, its sizes, modalities and prompts.

    Raises:
        ConfigError: there is no licence.
    """
    import yaml

    if not license.strip():
        raise ConfigError("license: name one, such as apache-2.0")
    modalities = sorted(model.modalities)
    head: dict[str, Any] = {
        "license": license,
        "language": list(languages),
        "library_name": "mmembed",
        "pipeline_tag": "feature-extraction" if modalities == ["text"] else "any-to-any",
        "tags": ["mmembed", "embeddings", "feature-extraction", *modalities],
    }
    if base_model:
        head["base_model"] = base_model
    prompts = {name: text for name, text in model.config.prompts.items() if text}
    rows = [
        ("dimensions", str(model.dim)),
        ("outputs", ", ".join(model.outputs)),
        ("reads", ", ".join(modalities)),
        ("longest text", f"{model.max_tokens} tokens"),
        ("fingerprint", f"`{model.fingerprint}`"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    told = "\n".join(f"- `{name}`: {text!r}" for name, text in prompts.items())
    return f"""---
{yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip()}
---

# {repo.rpartition("/")[2]}

Embeddings of {", ".join(modalities)} in one space, made with mmembed.

```python
from mmembed import Embedder

model = Embedder.from_pretrained("{repo}")
queries = model.encode_query(["two dogs in the snow"])
documents = model.encode_document(["a dog", "a cat"])
model.similarity(queries, documents)
```

| | |
|---|---|
{table}

{f"Prompts, which the model adds by itself:{chr(10)}{chr(10)}{told}" if told else "No prompts."}
"""
