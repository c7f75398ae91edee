"""Files of other origins, broken files, and the hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_cases import close, encode, rows_of, shake
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmembed.adapters import TaskAdapters
from mmembed.errors import ConfigError, ModelLoadError

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


class Case:
    """A saved adapter, what it gives, and an empty copy of its backbone."""

    def __init__(self, made: Callable[[str], Any], family: str, folder: Path) -> None:
        source = made(family)
        adapters = TaskAdapters(source)
        adapters.add("code", rank=3)
        shake(adapters, "code", 0)
        self.folder = folder / "code"
        adapters.save("code", self.folder)
        self.rows = rows_of(source)
        self.expected = encode(source, adapters, self.rows, ["code"] * len(self.rows))
        self.modules = set(adapters.modules("code"))
        self.backbone = made(family)
        self.before = {k: v.clone() for k, v in self.backbone.state_dict().items()}
        self.adapters = TaskAdapters(self.backbone)

    def rewrite(
        self,
        change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]] = lambda state: state,
        **config: Any,
    ) -> None:
        state = change(load_file(self.folder / WEIGHTS))
        save_file({key: value.clone() for key, value in state.items()}, self.folder / WEIGHTS)
        content = json.loads((self.folder / CONFIG).read_text())
        (self.folder / CONFIG).write_text(json.dumps({**content, **config}))

    def check(self, name: str = "code") -> None:
        assert set(self.adapters.modules(name)) == self.modules
        tasks = [name] * len(self.rows)
        close(encode(self.backbone, self.adapters, self.rows, tasks), self.expected)

    def refused(self, message: str, **options: Any) -> None:
        with pytest.raises(ModelLoadError, match=message):
            self.adapters.load(self.folder, **options)
        # Nothing is half-loaded.
        assert self.adapters.names == ()
        after = self.backbone.state_dict()
        assert after.keys() == self.before.keys()
        assert all(torch.equal(after[key], value) for key, value in self.before.items())


@pytest.fixture
def bert(made: Callable[[str], Any], tmp_path: Path) -> Case:
    return Case(made, "bert", tmp_path)


@pytest.fixture
def vlm(made: Callable[[str], Any], tmp_path: Path) -> Case:
    return Case(made, "qwen2_5_vl", tmp_path)


def keys(pattern: str, replacement: str) -> Callable[[dict[str, Tensor]], Mapping[str, Tensor]]:
    import re

    return lambda state: {re.sub(pattern, replacement, key): v for key, v in state.items()}


def test_saved_and_loaded_again(bert: Case) -> None:
    assert bert.adapters.load(str(bert.folder)) == "code"
    bert.check()


@pytest.mark.parametrize(
    "change",
    [
        keys(r"^base_model\.model\.", ""),
        keys(r"\.weight$", ".default.weight"),
        keys(r"^base_model\.model\.(.*)\.weight$", r"\1.retrieval.weight"),
    ],
    ids=["no prefix", "default in the middle", "its own name in the middle"],
)
def test_keys_are_read_as_others_write_them(
    bert: Case, change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
) -> None:
    bert.rewrite(change)
    bert.adapters.load(bert.folder)
    bert.check()


def test_lengths_of_dora_are_read_under_both_names(
    made: Callable[[str], Any], tmp_path: Path
) -> None:
    source, backbone = made("bert"), made("bert")
    adapters, again = TaskAdapters(source), TaskAdapters(backbone)
    adapters.add("code", dora=True)
    shake(adapters, "code", 0)
    adapters.save("code", tmp_path)
    state = load_file(tmp_path / WEIGHTS)
    assert sum(key.endswith(".lora_magnitude_vector") for key in state) == 12
    named = {k.replace("_vector", "_vector.default.weight"): v for k, v in state.items()}
    save_file(named, tmp_path / WEIGHTS)
    again.load(tmp_path, "code")
    rows = rows_of(source)
    tasks = ["code"] * len(rows)
    close(encode(backbone, again, rows, tasks), encode(source, adapters, rows, tasks))


def test_one_of_several_adapters_in_a_file_is_chosen_by_name(bert: Case) -> None:
    # jina-embeddings-v4 keeps its tasks in one file like this.
    def several(state: dict[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        for key, value in state.items():
            found[key.replace(".weight", ".code.weight")] = value
            found[key.replace(".weight", ".retrieval.weight")] = torch.zeros_like(value)
        return found

    bert.rewrite(several)
    bert.refused("holds the adapters code, retrieval: load one by its name", name="matching")
    bert.adapters.load(bert.folder, "code")
    bert.adapters.load(bert.folder, "retrieval")
    bert.check()
    tasks = ["retrieval"] * len(bert.rows)
    base = encode(bert.backbone, None, bert.rows, [])
    close(encode(bert.backbone, bert.adapters, bert.rows, tasks), base)


@pytest.mark.parametrize(
    "change",
    [
        keys(r"\.model\.language_model\.", ".model.model.language_model."),
        keys(r"\.model\.language_model\.", ".model.model."),
        keys(r"\.model\.language_model\.", ".model."),
    ],
    ids=["with the head's name", "before transformers 4.52", "of the language model alone"],
)
def test_layers_are_found_under_their_older_and_longer_names(
    vlm: Case, change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
) -> None:
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    # By last names alone the config would also mean the vision tower, which has such layers.
    vlm.rewrite(change, target_modules=targets)
    if any(
        "language_model" in key or ".model.model." in key for key in load_file(vlm.folder / WEIGHTS)
    ):
        vlm.refused(r"tensor '.*visual.*lora_A\.weight' is missing")
    vlm.adapters.load(vlm.folder, targets=vlm.backbone.lora_targets)
    vlm.check()
    # The saved copy says what it has, so it needs no help.
    vlm.adapters.save("code", vlm.folder)
    vlm.adapters.load(vlm.folder, "again")
    vlm.check("again")


def test_names_that_nobody_knows_can_be_mapped(bert: Case) -> None:
    bert.rewrite(keys(r"\.encoder\.layer\.", ".blocks."))
    bert.refused(r"tensor 'blocks\.0\..*lora_A\.weight' has no place .*\(12 of 12 layers")
    bert.adapters.load(bert.folder, key_mapping={r"^blocks\.": "encoder.layer."})
    bert.check()


def test_layers_that_fit_two_towers_are_refused(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    small = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    vision = {**small, "image_size": 16, "patch_size": 8}

    class Towers(torch.nn.Module):
        lora_targets = r"model\.text_model\..*\.[qkv]_proj"

        def __init__(self) -> None:
            super().__init__()
            text = {**small, "vocab_size": 50}
            self.model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision))

    adapters = TaskAdapters(Towers())  # type: ignore[arg-type]
    adapters.add("code")
    assert all("text_model" in name for name in adapters.modules("code"))
    adapters.save("code", tmp_path / "code")
    again = TaskAdapters(Towers())  # type: ignore[arg-type]
    again.load(tmp_path / "code")
    assert again.modules("code") == adapters.modules("code")
    state = load_file(tmp_path / "code" / WEIGHTS)
    short = {key.replace("text_model.", ""): value for key, value in state.items()}
    save_file(short, tmp_path / "code" / WEIGHTS)
    with pytest.raises(ModelLoadError, match=r"'model\.text_model' and 'model\.vision_model'"):
        again.load(tmp_path / "code", "new")
    again.load(
        tmp_path / "code",
        "new",
        key_mapping={"^": "text_model."},
        targets=r"model\.text_model\..*\.[qkv]_proj",
    )
    assert again.modules("new") == adapters.modules("code")


QUERY = "base_model.model.encoder.layer.0.attention.self.query.lora_B.weight"


def test_every_tensor_must_be_there_and_have_a_place_and_its_shape(bert: Case) -> None:
    whole = load_file(bert.folder / WEIGHTS)
    bert.rewrite(lambda state: {k: v for k, v in state.items() if k != QUERY})
    bert.refused(r"layer\.0\.attention\.self\.query\.lora_B\.weight' is missing \(1 in all\)")
    layer = QUERY.removesuffix(".lora_B.weight")
    bert.rewrite(lambda _: {k: v for k, v in whole.items() if not k.startswith(layer)})
    bert.refused(r"query\.lora_A\.weight' is missing \(2 in all\)")
    bert.rewrite(
        lambda _: {**whole, "base_model.model.encoder.layer.9.x.lora_A.weight": whole[QUERY]}
    )
    bert.refused(r"'encoder\.layer\.9\.x\.lora_A\.weight' has no place in this model \(1 of 13")
    bert.rewrite(lambda _: {**whole, f"{layer}.lora_magnitude_vector": torch.ones(32)})
    bert.refused(r"query\.lora_magnitude_vector' has no place by the config")
    bert.rewrite(lambda _: {**whole, QUERY: whole[QUERY][:7]})
    bert.refused(r"query\.lora_B\.weight' has shape \(7, 3\), not \(32, 3\)")
    bert.rewrite(lambda _: {**whole, "base_model.model.embeddings.lora_embedding_A": whole[QUERY]})
    bert.refused(r"tensor 'base_model\.model\.embeddings\.lora_embedding_A' is no part of an adap")
    bert.rewrite(lambda _: {**whole, "base_model.model.pooler.weight": whole[QUERY]})
    bert.refused(r"pooler\.weight' is no part")
    bert.rewrite(lambda _: {})
    bert.refused("holds no tensors")
    (bert.folder / WEIGHTS).write_bytes(b"nothing")
    bert.refused(r"adapter_model\.safetensors: ")
    (bert.folder / WEIGHTS).unlink()
    bert.refused(r"adapter_model\.safetensors")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"target_modules": ["query"]}, r"layer\.0.*lora_A\.weight' has no place by the config"),
        ({"target_modules": ["nothing"]}, "Target modules"),
        ({"target_modules": None}, "target_modules is missing"),
        ({"r": 5}, r"lora_A\.weight' has shape \(3, 32\), not \(5, 32\)"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"modules_to_save": ["pooler"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"init_lora_weights": "pissa"}, "'pissa', which changes the base weights"),
        (
            {
                "auto_mapping": {
                    "base_model_class": "Qwen2Model",
                    "parent_library": "transformers.models.qwen2.modeling_qwen2",
                }
            },
            r"for a Qwen2Model, and this model has: BertModel",
        ),
    ],
)
def test_configs_of_something_else_are_refused(
    bert: Case, config: dict[str, Any], message: str
) -> None:
    bert.rewrite(**config)
    bert.refused(message)


def test_damaged_configs_are_refused(bert: Case) -> None:
    (bert.folder / CONFIG).write_text("{")
    bert.refused(r"adapter_config\.json")
    (bert.folder / CONFIG).unlink()
    bert.refused(r"adapter_config\.json is missing")


def test_configs_of_a_later_peft_are_read(bert: Case) -> None:
    bert.rewrite(use_something_new=False, peft_version="9.9.9")
    bert.adapters.load(bert.folder)
    bert.check()


def test_a_failed_save_leaves_the_earlier_one(bert: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    bert.adapters.load(bert.folder)

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("safetensors.torch.save_file", full)
        with pytest.raises(OSError, match="No space left"):
            bert.adapters.save("code", bert.folder)
    assert sorted(path.name for path in bert.folder.parent.iterdir()) == ["code"]
    bert.adapters.load(bert.folder, "again")
    bert.check("again")


def test_all_adapters_are_saved_beside_the_model(
    made: Callable[[str], Any], tmp_path: Path
) -> None:
    source, backbone = made("qwen2_vl"), made("qwen2_vl")
    adapters, again = TaskAdapters(source), TaskAdapters(backbone)
    for seed, name in enumerate(("retrieval", "text-matching", "code")):
        adapters.add(name, rank=2, dora=bool(seed))
        shake(adapters, name, seed)
    adapters.save_all(tmp_path / "adapters")
    adapters.remove("code")
    (tmp_path / "adapters" / "note.txt").write_text("from an earlier time")
    adapters.save_all(tmp_path / "adapters")
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    assert found == [
        f"adapters/{name}/{file}"
        for name in ("retrieval", "text-matching")
        for file in (CONFIG, WEIGHTS)
    ]
    again.load_all(tmp_path / "adapters")
    assert again.names == adapters.names == ("retrieval", "text-matching")
    rows = rows_of(source)
    tasks = ["retrieval", "", "text-matching"] * 2
    close(encode(backbone, again, rows, tasks), encode(source, adapters, rows, tasks))
    with pytest.raises(ConfigError, match="'retrieval' already"):
        again.load_all(tmp_path / "adapters")
    # One bad folder, and none is loaded.
    fresh = TaskAdapters(made("qwen2_vl"))
    (tmp_path / "adapters" / "text-matching" / WEIGHTS).unlink()
    with pytest.raises(ModelLoadError, match="text-matching"):
        fresh.load_all(tmp_path / "adapters")
    assert fresh.names == ()
    TaskAdapters(made("qwen2_vl")).load_all(tmp_path / "not there")


def test_a_saved_text_model_is_the_base_alone(made: Callable[[str], Any], tmp_path: Path) -> None:
    backbone = made("bert")
    expected = backbone.encoder.full.state_dict()
    expected = {key: value.clone() for key, value in expected.items()}
    adapters = TaskAdapters(backbone)
    adapters.add("code")
    shake(adapters, "code", 0)
    backbone.save_pretrained(str(tmp_path / "model"))
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[key], value) for key, value in expected.items())


def test_the_hub_is_read_and_written(bert: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def download(repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.update(repo=repo, revision=revision, patterns=allow_patterns)
        if repo == "me/not-there":
            raise OSError("404")
        return str(bert.folder.parent)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    name = bert.adapters.load("me/adapters", subfolder="code", revision="v2")
    assert (name, asked["repo"], asked["revision"]) == ("code", "me/adapters", "v2")
    assert asked["patterns"] == [f"code/{CONFIG}", f"code/{WEIGHTS}"]
    bert.check()
    with pytest.raises(ModelLoadError, match=r"'me/not-there'|me/not-there is no folder.*404"):
        bert.adapters.load("me/not-there")

    pushed: dict[str, Any] = {}

    class FakeHub:
        def create_repo(self, repo: str, **options: Any) -> None:
            pushed.update(repo=repo, **options)

        def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> Any:
            pushed.update({file.name: file.read_bytes() for file in Path(folder_path).iterdir()})
            pushed.update(to=repo_id, message=commit_message)
            return type("Commit", (), {"commit_url": f"https://hub/{repo_id}/commit/1"})()

    monkeypatch.setattr("huggingface_hub.HfApi", FakeHub)
    assert bert.adapters.push("code", "me/code", private=True) == "https://hub/me/code/commit/1"
    assert (pushed["repo"], pushed["to"], pushed["private"]) == ("me/code", "me/code", True)
    assert pushed[WEIGHTS] == (bert.folder / WEIGHTS).read_bytes()
    assert json.loads(pushed[CONFIG])["peft_type"] == "LORA"
    with pytest.raises(ConfigError, match="unknown task"):
        bert.adapters.push("x", "me/x")
