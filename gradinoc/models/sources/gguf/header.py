"""The head of a GGUF file: what it states about its model, and where its tensors lie; every length is checked."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType, GGUFValueType, dequantize
from numpy.typing import NDArray

from gradinoc.errors import ModelError, reason, shown

VERSIONS = (2, 3)  # the first version counted in 32 bits
NUMBERS = {
    GGUFValueType.UINT8: "<u1", GGUFValueType.INT8: "<i1", GGUFValueType.UINT16: "<u2", GGUFValueType.INT16: "<i2",
    GGUFValueType.UINT32: "<u4", GGUFValueType.INT32: "<i4", GGUFValueType.FLOAT32: "<f4", GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "<u8", GGUFValueType.INT64: "<i8", GGUFValueType.FLOAT64: "<f8",
}  # fmt: skip
PIECE = re.compile(r"-(\d+)-of-(\d+)\.gguf", re.IGNORECASE)
# What a file may be besides a model: its `general.type`, or the architecture that says so in older files.
OTHERS = {
    "adapter": "an adapter, which stands for a base model from somewhere else; merge it into that model",
    "mmproj": "the part that sees or hears of a larger model; give the file of its language model",
    "clip": "the part that sees or hears of a larger model; give the file of its language model",
}


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor lies in its file: shape in torch's order, type of its blocks, first byte and number of bytes."""

    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int
    size: int


@dataclass(frozen=True)
class Header:
    """What a GGUF file states (key -> value, an array as a list) and its tensors by name."""

    file: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorPlace]

    @property
    def architecture(self) -> str:
        """The name that llama.cpp has for the kind of model."""
        return str(self.metadata["general.architecture"])

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


def read_header(file: Path) -> Header:
    """The head of `file`, whose tensors all lie within it and can be read. Takes a second for 150,000 tokens.

    The gguf package's own reader takes 30 s for them, and reads over the end of a file that was cut.

    Raises:
        ModelError: no GGUF file, cut off, one of several, no language model, or blocks that cannot be unpacked.
    """
    try:
        reader = _Reader(file)
        metadata, count = reader.metadata()
        header = Header(file, metadata, {})
        _ensure_model(header)
        header.tensors.update(reader.tensors(count, metadata.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)))
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({reason(error)})") from error
    if not header.tensors:
        raise header.refuse("holds no weights; expected a GGUF file with those of a language model")
    return header


class _Reader:
    """Reads one value after the other, and never over the end."""

    def __init__(self, file: Path) -> None:
        self.file, self.at = file, 0
        size = file.stat().st_size
        self.content = np.memmap(file, np.uint8, mode="r").data if size else memoryview(b"")
        if bytes(self.content[:4]) != b"GGUF":
            raise self._error("is no GGUF file; expected one as llama.cpp's converter writes it")

    def metadata(self) -> tuple[dict[str, Any], int]:
        """Key -> value, and the number of tensors."""
        self.at = 4
        version = self._number("<I")
        if version not in VERSIONS:
            swapped = "; it was written for a big-endian machine" if version & 0xFFFF == 0 and version else ""
            raise self._error(f"GGUF version {version}: expected one of {list(VERSIONS)}{swapped}; convert it again")
        tensors, keys = self._number("<Q"), self._number("<Q")
        found: dict[str, Any] = {}
        for _ in range(keys):
            key = self._text()
            found[key] = self._value(self._kind(GGUFValueType, "value"))
        return found, tensors

    def tensors(self, count: int, alignment: Any) -> dict[str, TensorPlace]:
        """Name -> place of every tensor; their data begin at the next multiple of `alignment` bytes."""
        if type(alignment) is not int or alignment < 1:
            raise self._error(f"general.alignment: expected a positive number of bytes, received {shown(alignment)}")
        listed = [self._tensor() for _ in range(count)]
        data, found = -(-self.at // alignment) * alignment, {}
        for name, shape, kind, offset in listed:
            place = TensorPlace(shape, kind, data + offset, self._size(name, shape, kind))
            if place.start + place.size > len(self.content):
                raise self._error(
                    f"is cut off: tensor {shown(name)} ends at byte {place.start + place.size}, the file at "
                    f"{len(self.content)}; fetch it again"
                )
            if name in found:
                raise self._error(f"holds two tensors {shown(name)}; expected one of each name")
            found[name] = place
        return found

    def _tensor(self) -> tuple[str, tuple[int, ...], GGMLQuantizationType, int]:
        name, dimensions = self._text(), self._number("<I")
        shape = tuple(self._number("<Q") for _ in range(dimensions))[::-1]
        return name, shape, self._kind(GGMLQuantizationType, f"tensor {shown(name)}"), self._number("<Q")

    def _size(self, name: str, shape: tuple[int, ...], kind: GGMLQuantizationType) -> int:
        elements, size = GGML_QUANT_SIZES[kind]
        if not shape or not all(shape) or shape[-1] % elements:
            raise self._error(f"tensor {shown(name)} of shape {shape}: expected rows of whole blocks of {elements}")
        if not _can_be_unpacked(kind):
            raise self._error(
                f"tensor {shown(name)} is held as {kind.name}, which cannot be unpacked; give a file of another type, "
                "such as Q8_0 or F16"
            )
        return prod(shape) // elements * size

    def _value(self, kind: GGUFValueType) -> Any:
        if kind is GGUFValueType.STRING:
            return self._text()
        if kind is not GGUFValueType.ARRAY:
            return np.frombuffer(self._take(np.dtype(NUMBERS[kind]).itemsize), NUMBERS[kind])[0].item()
        kind, count = self._kind(GGUFValueType, "array"), self._number("<Q")
        if kind is GGUFValueType.ARRAY:
            raise self._error("holds an array of arrays; expected numbers or texts")
        if kind is GGUFValueType.STRING:
            return [self._text() for _ in range(count)]
        return np.frombuffer(self._take(count * np.dtype(NUMBERS[kind]).itemsize), NUMBERS[kind]).tolist()

    def _text(self) -> str:
        try:
            return str(self._take(self._number("<Q")), "utf-8")
        except UnicodeDecodeError as error:
            raise self._error("holds a text that is not UTF-8; fetch it again or convert it again") from error

    def _kind(self, kinds: Any, what: str) -> Any:
        number = self._number("<I")
        try:
            return kinds(number)
        except ValueError as error:
            raise self._error(f"{what} of type {number}, which is not known; give a file of another type") from error

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._take(struct.calcsize(form)))[0])

    def _take(self, count: int) -> memoryview:
        if count > len(self.content) - self.at:
            raise self._error(f"is cut off within its head, at byte {len(self.content)}; fetch it again")
        self.at += count
        return self.content[self.at - count : self.at]

    def _error(self, words: str) -> ModelError:
        return ModelError(f"{self.file}: {words}")


def tensor_blocks(header: Header, name: str) -> NDArray[np.uint8]:
    """The bytes of a tensor as they lie in the file, `[rows, bytes]`; read when they are looked at."""
    place = header.tensors[name]
    whole = np.memmap(header.file, np.uint8, mode="r", offset=place.start, shape=(place.size,))
    return whole.reshape(prod(place.shape[:-1]), -1)


def _ensure_model(header: Header) -> None:
    """Ensure that the file holds a whole language model, by its own metadata."""
    stated = header.metadata
    architecture, kind = header.text("general.architecture"), header.text("general.type")
    if architecture is None:
        raise header.refuse("states no general.architecture; expected a GGUF file of a language model")
    adapter = "adapter" if any(key.startswith("adapter.") for key in stated) else None
    for stated_kind in (adapter, kind, architecture):
        if stated_kind in OTHERS:
            raise header.refuse(f"is {OTHERS[stated_kind]}")
    if kind not in (None, "model"):
        raise header.refuse(f"general.type: expected 'model', received {shown(kind)}; give the file of a model")
    named = PIECE.search(header.file.name)
    pieces = int(named[2]) if named else stated.get("split.count", 1)
    if pieces not in (0, 1):
        raise header.refuse(
            f"is one of {shown(pieces)} pieces of a model; join them with llama.cpp's gguf-split --merge and give that "
            "file"
        )


@lru_cache
def _can_be_unpacked(kind: GGMLQuantizationType) -> bool:
    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True
