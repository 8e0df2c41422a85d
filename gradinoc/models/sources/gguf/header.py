"""What a GGUF file states about its model, and its tensors, as the gguf package reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, ReaderTensor
from numpy.typing import NDArray

from gradinoc.errors import ModelError, reason, shown

PIECE = re.compile(r"-(\d+)-of-(\d+)\.gguf", re.IGNORECASE)
# What a file may be besides a model: its `general.type`, or the architecture that says so in older files.
OTHERS = {
    "adapter": "an adapter, which stands for a base model from somewhere else; merge it into that model",
    "mmproj": "the part that sees or hears of a larger model; give the file of its language model",
    "clip": "the part that sees or hears of a larger model; give the file of its language model",
}


@dataclass(frozen=True)
class Header:
    """What a GGUF file states (key -> value, an array as a list) and its tensors by name."""

    file: Path
    metadata: dict[str, Any]
    tensors: dict[str, ReaderTensor]

    @property
    def architecture(self) -> str:
        """The name that llama.cpp has for the kind of model."""
        return str(self.metadata["general.architecture"])

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape in torch's order."""
        return tuple(int(size) for size in reversed(self.tensors[name].shape))

    def blocks(self, name: str) -> NDArray[Any]:
        """A tensor as it lies in the file, `[rows, ...]`; read when it is looked at."""
        return self.tensors[name].data.reshape(prod(self.shape(name)[:-1]), -1)

    def text(self, key: str) -> str | None:
        """The text that the file states under `key`, None where it states nothing.

        Raises:
            ModelError: it states something else.
        """
        value = self.metadata.get(key)
        if value is not None and not isinstance(value, str):
            raise self.refuse(f"{key}: expected a text, received {shown(value)}; convert it again")
        return value

    def refuse(self, words: str) -> ModelError:
        """An error about this file."""
        return ModelError(f"{self.file}: {words}")


class _Reader(GGUFReader):
    """The gguf package's reader, which by itself reads over the end of a file that was cut."""

    def _get(self, offset: int, dtype: Any, count: Any = 1, override_order: Any = None) -> NDArray[Any]:
        if offset + np.dtype(dtype).itemsize * int(count) > len(self.data):
            raise ValueError(f"cut off at byte {len(self.data)}")
        found: NDArray[Any] = super()._get(offset, dtype, count, override_order)
        return found


def read_header(file: Path) -> Header:
    """What `file` states and its tensors, all of which lie within it. Takes 30 s for 150,000 tokens.

    Raises:
        ModelError: no GGUF file, cut off, one of several, or no language model.
    """
    try:
        reader = _Reader(file)
        metadata = {key: field.contents() for key, field in reader.fields.items()}
    except Exception as error:  # a damaged file makes the library stumble in many ways
        raise ModelError(
            f"{file}: is no whole GGUF file ({reason(error)}); fetch it again or convert it again"
        ) from error
    header = Header(file, metadata, {tensor.name: tensor for tensor in reader.tensors})
    _ensure_model(header)
    if not header.tensors:
        raise header.refuse("holds no weights; expected a GGUF file with those of a language model")
    return header


def _ensure_model(header: Header) -> None:
    """Ensure that the file holds a whole language model, by its own metadata."""
    architecture, kind = header.text("general.architecture"), header.text("general.type")
    if architecture is None:
        raise header.refuse("states no general.architecture; expected a GGUF file of a language model")
    adapter = "adapter" if any(key.startswith("adapter.") for key in header.metadata) else None
    for stated in (adapter, kind, architecture):
        if stated in OTHERS:
            raise header.refuse(f"is {OTHERS[stated]}")
    if kind not in (None, "model"):
        raise header.refuse(f"general.type: expected 'model', received {shown(kind)}; give the file of a model")
    named = PIECE.search(header.file.name)
    pieces = int(named[2]) if named else header.metadata.get("split.count", 1)
    if pieces not in (0, 1):
        raise header.refuse(
            f"is one of {shown(pieces)} pieces of a model; join them with llama.cpp's gguf-split --merge and give that "
            "file"
        )
