"""What an index asks of a model; :class:`mmembed.embedder.Embedder` satisfies it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol, TypeAlias, cast

from mmembed.encoded import Encoded
from mmembed.errors import ConfigError
from mmembed.inputs.items import ItemLike

__all__ = ["EmbeddingModel", "Encoded", "MultiVectorModel", "Role", "multi_vector_model"]

Role: TypeAlias = Literal["query", "document"]


class EmbeddingModel(Protocol):
    """A model that turns items into vectors of one length.

    Attributes:
        name: what ``Embedder.from_pretrained`` would load it by.
        fingerprint: changes whenever the same item would get another vector: weights and
            preprocessing.
        dim: length of the vectors.
    """

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def dim(self) -> int: ...

    def encode_stream(self, items: Iterable[ItemLike], /, *, role: Role) -> Iterator[Encoded]:
        """Encode items in order, reading a bounded number of them ahead.

        Every item gives exactly one result, in the order of the input; a bad item gives its error
        and spoils no other. ``items`` may be read from another thread, but only from one.
        """
        ...


class MultiVectorModel(EmbeddingModel, Protocol):
    """A model that gives a vector a token too."""

    @property
    def outputs(self) -> Sequence[str]:
        """What it can give, ``"multi"`` among them."""
        ...

    def encode_stream(
        self,
        items: Iterable[ItemLike],
        /,
        *,
        role: Role,
        output: Sequence[Literal["dense", "multi"]] = ("dense",),
    ) -> Iterator[Encoded]: ...


def multi_vector_model(model: EmbeddingModel) -> MultiVectorModel:
    """The same model, if it has a vector a token.

    Raises:
        ConfigError: it has not.
    """
    if "multi" not in getattr(model, "outputs", ()):
        raise ConfigError(
            f"model {model.name!r} gives no vector a token, which late interaction needs"
        )
    return cast(MultiVectorModel, model)
