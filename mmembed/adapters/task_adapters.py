"""Adding, routing, training, saving and merging the task adapters of a backbone."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from peft import LoraConfig
from torch import nn

from mmembed.adapters.building import Prepared, fresh_layers, regex_of
from mmembed.adapters.files import CONFIG_NAME, adapter_folder
from mmembed.adapters.installed import InstalledAdapters
from mmembed.adapters.loading import filled, read_prepared, write_prepared
from mmembed.adapters.merging import check_mergeable, merge_into_base
from mmembed.adapters.naming import View, common_root, plain_modules
from mmembed.adapters.routing import Route, current_route, following
from mmembed.backbones.base import Backbone, module_of
from mmembed.errors import ConfigError
from mmembed.gate import Gate
from mmembed.gpte.folders import whole_folder

__all__ = ["TaskAdapters"]


class TaskAdapters:
    """The LoRA adapters of one backbone, each for a task.

    Rows choose their adapters batch by batch, inside :meth:`routed`; the base model and its frozen
    weights are shared. Any number of threads may encode while adapters are added, loaded, removed
    or merged: a change waits for the batches that run and happens between batches.

    Args:
        backbone: the model. Its ``lora_targets`` are the layers that new adapters change.
        gate: where batches run that know nothing of adapters yet; one of its own by default.

    Attributes:
        merges: how often :meth:`merge` has changed the base weights.

    Example:
        >>> adapters = TaskAdapters(backbone)
        >>> adapters.load("my-adapters/code", name="code")
        >>> with adapters.routed(["code", ""], lengths=[7, 5]):
        ...     states = backbone.forward(batch)
    """

    def __init__(self, backbone: Backbone, gate: Gate | None = None) -> None:
        self._module = module_of(backbone)
        self._targets = backbone.lora_targets
        self._adapters = InstalledAdapters(self._module, gate or Gate())
        self._changing = threading.RLock()
        self.merges = 0

    @classmethod
    def of(cls, backbone: Backbone, gate: Gate, folder: Path | None) -> TaskAdapters:
        """The adapters that came with a model, as :meth:`load_all`; none without a folder."""
        adapters = cls(backbone, gate)
        if folder is not None:
            adapters.load_all(folder)
        return adapters

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters, in the order they came."""
        return self._adapters.names

    def check(self, task: str, others: Collection[str] = ()) -> None:
        """Raise unless ``task`` is an adapter, one of the ``others``, or ``""`` for the base model.

        Raises:
            ConfigError: names the task, the nearest one, and all there are.
        """
        self._adapters.check(task, others)

    def modules(self, name: str) -> tuple[str, ...]:
        """The layers that an adapter changes, by their names in the backbone.

        Raises:
            ConfigError: there is no such adapter.
        """
        return self._adapters[name].layers

    def by_rows(self, name: str) -> bool:
        """Whether rows with this adapter can share a batch with others.

        An adapter that also changes a vision tower cannot: patches lie in another order than rows.
        """
        return self._adapters[name].by_rows

    def stands_apart(self, task: str) -> bool:
        """Whether the rows of a task need forwards of their own; ``""`` is the model alone."""
        return task in self.names and not self.by_rows(task)

    # --- encoding ---------------------------------------------------------------------------

    @contextmanager
    def routed(
        self, tasks: Sequence[str], lengths: Sequence[int], others: Collection[str] = ()
    ) -> Iterator[None]:
        """Run the forward of one batch with an adapter a row.

        Args:
            tasks: adapter of each row, ``""`` for the base model alone.
            lengths: tokens of each row.
            others: tasks that need no adapter, because they have heads of their own.

        Raises:
            ConfigError: a task is unknown, or (in the forward) a layer's states are no rows.
        """
        if current_route() is not None:
            raise ConfigError("a batch is already routed here: finish it first")
        route = Route(tasks, lengths)
        with self._adapters.gate.shared():
            # Checked inside, where no adapter can go away any more.
            for name in route.names:
                self.check(name, others)
            with following(route):
                yield

    # --- adapters come and go ---------------------------------------------------------------

    def add(
        self,
        name: str,
        *,
        rank: int = 16,
        alpha: float | None = None,
        dropout: float = 0.0,
        dora: bool = False,
        rslora: bool = False,
        targets: str | None = None,
    ) -> None:
        """Add an untrained adapter, which changes no vector yet.

        Args:
            name: of the task.
            rank: of the two matrices.
            alpha: scale, divided by the rank; twice the rank by default.
            dropout: on the adapter's input, in training.
            dora: also learn the length of each output's weights (Liu et al. 2024).
            rslora: divide alpha by the root of the rank instead (Kalajdzievski 2023).
            targets: regular expression of backbone module names; the backbone's own by default.

        Raises:
            ConfigError: the name is taken or unusable, or no layer matches.
        """
        with self._changing:
            self._adapters.check_new(name)
            pattern = self._targets if targets is None else targets
            layers = [one for one in plain_modules(self._module) if re.fullmatch(pattern, one)]
            if not layers:
                raise ConfigError(
                    f"adapter {name!r}: no module of the backbone matches {pattern!r}"
                )
            view = View(common_root(self._module, layers))
            names = view.names(plain_modules(self._module))
            config = LoraConfig(
                r=rank,
                lora_alpha=2 * rank if alpha is None else alpha,
                lora_dropout=dropout,
                target_modules=regex_of([names[one] for one in layers]),
                use_dora=dora,
                use_rslora=rslora,
            )
            fresh = fresh_layers(self._module, config, names, name, self._targets)
            self._adapters.insert({name: Prepared(config, view, fresh)})

    def clone(self, source: str, name: str) -> None:
        """Add an adapter that starts as a copy of another one.

        Raises:
            ConfigError: there is no such source, or the name is taken or unusable.
        """
        with self._changing:
            self._adapters.check_new(name)
            adapter = self._adapters[source]
            tensors = {
                (one, part): tensor
                for one, layer in self._adapters.layers(source).items()
                for part, tensor in layer.tensors(source).items()
            }
            copied = filled(
                self._module, adapter.config, adapter.view, name, self._targets, tensors, source
            )
            self._adapters.insert({name: copied})

    def load(
        self,
        source: str | Path,
        name: str | None = None,
        *,
        subfolder: str = "",
        revision: str | None = None,
        targets: str | None = None,
        key_mapping: Mapping[str, str] | None = None,
        leave_out: Collection[str] = (),
    ) -> str:
        """Add an adapter from a folder or from the Hugging Face hub, in peft's format.

        Args:
            source: the folder, or the repository.
            name: of the task; the last part of ``source`` by default. Where the file holds several
                adapters, the one of this name is taken.
            subfolder: of the source.
            revision: of the repository.
            targets: regular expression of the backbone's modules that the file must have tensors
                for, in place of what its config says: for files whose config matches other modules
                today than when it was written.
            key_mapping: regular expressions of layer names in the file, each with what it becomes.
            leave_out: layers in the file that are no part of the backbone, e.g. a head's.

        Returns:
            The name.

        Raises:
            ModelLoadError: a file, or a tensor, is missing, has no place, or has another shape, or
                the adapter is for another kind of model; names it. Nothing is changed then.
            ConfigError: the name is taken or unusable.
        """
        folder = adapter_folder(source, subfolder, revision)
        name = name or Path(subfolder or source).name
        with self._changing:
            self._adapters.check_new(name)
            prepared = read_prepared(
                self._module,
                folder,
                name,
                self._targets,
                targets=targets,
                key_mapping=key_mapping,
                leave_out=leave_out,
            )
            self._adapters.insert({name: prepared})
        return name

    def remove(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            ConfigError: there is no such adapter.
        """
        with self._changing:
            self._adapters.layers(name)
            with self._adapters.alone():
                self._adapters.drop(name)

    def merge(self, which: str | Mapping[str, float]) -> None:
        """Fold adapters into the base weights, ``W + sum_i weight_i change_i``, and forget them.

        Sums are in float32 and rounded once to the type of the weights: in bfloat16 most of a small
        change would be lost. Adapters that stay go on changing the new base.

        Args:
            which: an adapter, or several with their weights.

        Raises:
            ConfigError: there is no such adapter, its numbers are not finite, or it has a bias
                where the base has none. Nothing is changed then.
        """
        weights = {which: 1.0} if isinstance(which, str) else dict(which)
        with self._changing:
            for name, weight in weights.items():
                for layer in self._adapters.layers(name).values():
                    check_mergeable(layer, name, weight)
            with self._adapters.alone():
                for one in sorted({one for name in weights for one in self.modules(name)}):
                    merge_into_base(self._adapters.layer(one), weights)
                self.merges += 1
                for name in weights:
                    self._adapters.drop(name)

    # --- training ---------------------------------------------------------------------------

    def parameters(self, name: str) -> list[nn.Parameter]:
        """The adapter's own parameters.

        Raises:
            ConfigError: there is no such adapter.
        """
        with self._changing:  # or the layers could be out of the model, while it is saved
            layers = self._adapters.layers(name).values()
            return [parameter for layer in layers for parameter in layer.tensors(name).values()]

    @contextmanager
    def trainable(self, *names: str) -> Iterator[list[nn.Parameter]]:
        """Freeze everything but these adapters, and yield their parameters for the optimizer.

        What was trainable before is so again afterwards. Batches go through :meth:`routed` as
        always; a row trains the adapter that it is routed to.

        Raises:
            ConfigError: there is no such adapter.
        """
        chosen = [parameter for name in names for parameter in self.parameters(name)]
        before = [(parameter, parameter.requires_grad) for parameter in self._module.parameters()]
        try:
            for parameter, _ in before:
                parameter.requires_grad_(False)
            for parameter in chosen:
                parameter.requires_grad_(True)
            yield chosen
        finally:
            for parameter, wanted in before:
                parameter.requires_grad_(wanted)

    # --- files ------------------------------------------------------------------------------

    @contextmanager
    def detached(self) -> Iterator[None]:
        """Run the block with the base model alone, under its own parameter names, to save it.

        Batches wait so long; the block must not run any.
        """
        with self._changing, self._adapters.detached():
            yield

    def save(self, name: str, folder: str | Path) -> None:
        """Write an adapter as peft does; the folder appears only when it is complete.

        ``peft.PeftModel.from_pretrained`` puts it on the transformers model inside this backbone.

        Raises:
            ConfigError: there is no such adapter.
            OSError: the disk is full or not writable; an earlier folder stays as it was.
        """
        with self._changing, whole_folder(Path(folder)) as partial:
            self._write(name, partial)

    def push(self, name: str, repo_id: str, *, private: bool = False) -> str:
        """Upload an adapter to the Hugging Face hub, and return the address of the commit.

        Raises:
            ConfigError: there is no such adapter.
        """
        from huggingface_hub import HfApi

        api = HfApi()
        with TemporaryDirectory() as folder:
            self.save(name, Path(folder) / name)
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=Path(folder) / name,
                commit_message=f"Upload the adapter {name}",
            )
        return str(commit.commit_url)

    def save_all(self, folder: str | Path) -> None:
        """Write every adapter to a folder of its name inside ``folder``, and nothing else there."""
        with self._changing, whole_folder(Path(folder)) as partial:
            for name in self.names:
                (partial / name).mkdir()
                self._write(name, partial / name)

    def load_all(self, folder: str | Path) -> None:
        """Add all adapters that :meth:`save_all` wrote, or none.

        Raises:
            ModelLoadError: as :meth:`load`.
            ConfigError: a name is taken.
        """
        found = sorted(path.parent for path in Path(folder).glob(f"*/{CONFIG_NAME}"))
        with self._changing:
            for one in found:
                self._adapters.check_new(one.name)
            self._adapters.insert(
                {
                    one.name: read_prepared(self._module, one, one.name, self._targets)
                    for one in found
                }
            )

    def _write(self, name: str, folder: Path) -> None:
        adapter = self._adapters[name]
        write_prepared(self._module, folder, name, adapter.config, adapter.layers)
