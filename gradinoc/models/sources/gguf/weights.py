"""The weights of a GGUF file as those of a transformers model: unpacked row by row, one tensor at a time."""

from __future__ import annotations

import numpy as np
import torch
from gguf import MODEL_ARCH_NAMES, GGMLQuantizationType, dequantize, get_tensor_name_map
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from gradinoc.errors import shown
from gradinoc.models.files import skeleton
from gradinoc.models.sources.gguf.architectures import FREQUENCIES
from gradinoc.models.sources.gguf.header import Header

PLAIN = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
}
# Numbers of a model so small that its unpacked blocks are kept in float32; see `gradinoc.measure.loading.load`.
SMALL = 10_000_000
AT_A_TIME = 1 << 22  # numbers that are unpacked at a time: 17 MB of float32 and what unpacking needs beside them


def load_weights(header: Header, config: PreTrainedConfig) -> PreTrainedModel:
    """The model of `config` with the weights of the file, on the CPU; beside them a few rows are held at a time.

    A file of plain numbers keeps them as they are. Blocks are rounded to bfloat16, and not at all in a tiny model.

    Raises:
        ModelError: a weight is missing, has another shape, or has no place in the model.
    """
    model = skeleton(config)
    try:
        weights = {name: _unpacked(header, theirs, config) for name, theirs in _names(header, model).items()}
    except NotImplementedError as error:
        raise header.refuse(
            f"cannot be unpacked ({error}); give a file of another type, such as Q8_0 or F16"
        ) from error
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    return model


def unpacked_bytes(header: Header) -> int:
    """Bytes that the unpacked weights take."""
    return sum(int(place.n_elements) * _dtype(header, name).itemsize for name, place in header.tensors.items())


def _names(header: Header, model: PreTrainedModel) -> dict[str, str]:
    """The model's name of each weight -> the file's, all of them accounted for."""
    arch = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == header.architecture)
    known = get_tensor_name_map(arch, model.config.num_hidden_layers)
    tied = set(model.all_tied_weights_keys)
    found = {}
    for name, weight in model.state_dict().items():
        if name in tied:
            continue
        theirs = known.get_name(name, try_suffixes=(".weight", ".bias"))
        shape = header.shape(theirs) if theirs in header.tensors else None
        if theirs is None or shape != tuple(weight.shape):
            raise header.refuse(
                f"expected a tensor {shown(theirs or name)} of shape {tuple(weight.shape)}, received {shape}; fetch "
                "the file again, or give another model"
            )
        found[name] = theirs
    if left := sorted(set(header.tensors) - set(found.values()) - {FREQUENCIES}):
        raise header.refuse(
            f"{len(left)} tensors have no place in a {type(model).__name__}, {shown(left[0])} first; give the model as "
            "a folder of safetensors, or another model"
        )
    return found


def _dtype(header: Header, name: str) -> torch.dtype:
    places = header.tensors.values()
    if all(place.tensor_type in PLAIN for place in places):
        return PLAIN[header.tensors[name].tensor_type]
    return torch.float32 if sum(int(place.n_elements) for place in places) < SMALL else torch.bfloat16


def _unpacked(header: Header, name: str, config: PreTrainedConfig) -> nn.Parameter:
    blocks, shape, kind = header.blocks(name), header.shape(name), header.tensors[name].tensor_type
    rows = torch.empty((len(blocks), shape[-1]), dtype=_dtype(header, name))
    step = max(1, AT_A_TIME // shape[-1])
    for start in range(0, len(blocks), step):
        values = np.array(dequantize(blocks[start : start + step], kind), np.float32)
        if header.architecture == "gemma3" and name.endswith("norm.weight"):
            values -= 1.0  # the file has what the states are multiplied by; transformers adds the 1
        rows[start : start + step] = torch.from_numpy(values)
    weight = rows.reshape(shape)
    if header.architecture == "llama":
        if ".attn_q." in name:
            weight = _by_halves(weight, config.num_attention_heads)
        if ".attn_k." in name:
            weight = _by_halves(weight, config.num_key_value_heads)
    return nn.Parameter(weight, requires_grad=False)


def _by_halves(weight: Tensor, heads: int) -> Tensor:
    """Rows of each head in transformers' order: llama.cpp rotates neighbours together, transformers the two halves."""
    return weight.reshape(heads, -1, 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)
