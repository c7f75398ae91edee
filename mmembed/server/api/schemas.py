"""Requests and answers of ``/v1``: OpenAI's names, with the multimodal forms of Jina and vLLM."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Content",
    "EmbeddingRequest",
    "MultiEmbeddingRequest",
    "RerankRequest",
]

MAX_ITEMS = 2048


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Url(_Strict):
    url: str
    detail: str | None = None


class _TextPart(_Strict):
    type: Literal["text", "input_text"]
    text: str


class _ImageUrlPart(_Strict):
    type: Literal["image_url"]
    image_url: _Url | str


class _VideoUrlPart(_Strict):
    type: Literal["video_url"]
    video_url: _Url | str


class _Base64Part(_Strict):
    type: Literal["image_base64"]
    image_base64: str


Part = Annotated[
    _TextPart | _ImageUrlPart | _VideoUrlPart | _Base64Part, Field(discriminator="type")
]


class Content(_Strict):
    """One input. Media are base64, a ``data:`` URI, or, where the server fetches, a URL.

    Attributes:
        text, image, video, document: what it holds (Jina's form); several make one fused input.
        content: the same as a list of typed parts (OpenAI's and vLLM's form).
        instruction: goes before it.
    """

    text: str | None = None
    image: str | list[str] | None = None
    video: str | None = None
    document: str | None = None
    content: str | list[Part] | None = None
    instruction: str | None = None


class _Message(_Strict):
    role: str
    content: str | list[Part]


class _Encode(_Strict):
    model: str = ""
    input: str | list[str | Content] | Content | list[int] | list[list[int]] | None = None
    messages: list[_Message] | None = None
    input_type: Literal["query", "document"] | None = None
    task: str | None = None
    instruction: str | None = None
    user: str | None = None


class EmbeddingRequest(_Encode):
    """``POST /v1/embeddings``.

    Attributes:
        model: a name of ``/v1/models``; the first by default.
        input: one input or several: texts, or objects with text, image, video or document.
        messages: one input as a conversation, in place of ``input`` (vLLM).
        input_type: picks the model's prompt for queries or documents.
        task: ``retrieval.query`` and ``retrieval.passage`` pick the prompt as Jina's do; any other
            name is a task adapter of the model.
        dimensions: keep so many dimensions (Matryoshka).
        encoding_format: ``float``, or ``base64`` of little-endian float32.
        embedding_type: Jina's name for it, which also knows ``binary`` (int8) and ``ubinary``
            (uint8): one bit a dimension, packed.
        normalized: accepted where it is true: vectors always have length one.
    """

    dimensions: int | None = Field(default=None, ge=1)
    encoding_format: Literal["float", "base64"] | None = None
    embedding_type: Literal["float", "base64", "binary", "ubinary"] | None = None
    normalized: Literal[True] = True


class MultiEmbeddingRequest(_Encode):
    """``POST /v1/multi_embeddings``: a vector a token, for late interaction."""


class RerankRequest(_Strict):
    """``POST /v1/rerank``, as Cohere and Jina have it.

    Attributes:
        query: an input.
        documents: inputs.
        top_n: keep so many of the best.
        return_documents: give the documents back with their scores.
        instruction: what a match is.
    """

    model: str = ""
    query: str | Content
    documents: list[str | Content] = Field(min_length=1, max_length=MAX_ITEMS)
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool = False
    instruction: str | None = None
    user: str | None = None


Answer = dict[str, Any]
