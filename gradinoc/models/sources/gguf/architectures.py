"""What a GGUF file states about its model, as a configuration of transformers; what has no place there is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from gguf import dequantize
from numpy.typing import NDArray
from transformers import AutoConfig, PreTrainedConfig

from gradinoc.errors import ModelError, reason, shown
from gradinoc.models.sources.gguf.header import Header

FREQUENCIES = "rope_freqs.weight"  # by what each rotary frequency is divided
# Llama 3.1 and later divide by a factor of the model's own between these bounds; the file has the result alone.
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
BLOCK = re.compile(r"blk\.(\d{1,4})\.")
GEMMA3_27B = 62  # blocks; its attention is scaled as if the width were shared out among the heads
LOCAL_BASE = 10_000.0  # rotary base of Gemma 3's sliding layers, in files that do not state it


class Stated:
    """What a file states below its architecture's name; `finish` refuses what no call has read."""

    def __init__(self, header: Header) -> None:
        self.header, self.prefix = header, f"{header.architecture}."
        self.left = {
            key.removeprefix(self.prefix): value
            for key, value in header.metadata.items()
            if key.startswith(self.prefix)
        }

    def get(self, key: str, default: Any = None) -> Any:
        """The value, asked for and so no longer left."""
        return self.left.pop(key, default)

    def number(self, key: str, default: float | None = None) -> Any:
        """A positive number that is the same for every block.

        Raises:
            ModelError: it is none, differs between blocks, or is not stated and has no default.
        """
        value = self.get(key, default)
        if isinstance(value, list) and value and all(each == value[0] for each in value):
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self.refuse(key, "a positive number, the same for every block", value)
        return value

    def expect(self, key: str, expected: Any, default: Any = None) -> None:
        """Ensure that the value, where there is one, is the only one that can be computed with."""
        value = self.get(key, default)
        if value is not None and value != expected:
            raise self.refuse(key, shown(expected), value)

    def refuse(self, key: str, expected: str, value: Any) -> ModelError:
        """An error about a value."""
        return self.header.refuse(
            f"{self.prefix}{key}: expected {expected}, received {shown(value)}; give the model as a folder of "
            "safetensors, or another model"
        )

    def finish(self) -> None:
        """Ensure that nothing is left that would change what the model computes; zero and false change nothing."""
        for key, value in self.left.items():
            if value:
                raise self.refuse(key, "nothing, as no place for it is known in this kind of model", value)


def config_of(header: Header) -> PreTrainedConfig:
    """The configuration of the model in a file.

    Raises:
        ModelError: an architecture that is not known here, or a value that is missing or has no place in it.
    """
    if header.architecture not in ARCHITECTURES:
        raise header.refuse(
            f"general.architecture: expected one of {sorted(ARCHITECTURES)}, received {shown(header.architecture)}; "
            "give the model as a folder of safetensors, or another model"
        )
    stated, name = Stated(header), header.text("general.name")
    shared = _shared(stated)
    own = ARCHITECTURES[header.architecture](stated, shared)
    stated.finish()
    named = {} if name is None else {"_model_name_or_path": name}
    try:
        config: PreTrainedConfig = AutoConfig.for_model(**{**named, **_ids(header), **shared, **own})
    except Exception as error:  # its validators raise what they like
        raise header.refuse(f"states a {own['model_type']} model that cannot be ({reason(error)})") from error
    return config


def _shared(stated: Stated) -> dict[str, Any]:
    """What models of every architecture state."""
    tensors = stated.header.tensors
    if "token_embd.weight" not in tensors:
        raise stated.header.refuse("holds no token_embd.weight; expected the weights of a language model")
    rows, width = stated.header.shape("token_embd.weight")
    blocks = 1 + max((int(found[1]) for found in map(BLOCK.match, tensors) if found), default=0)
    stated.expect("vocab_size", rows)
    stated.expect("embedding_length", width)
    stated.expect("block_count", blocks)
    stated.expect("attention.causal", True)
    stated.get("tensor_data_layout")  # of the converter's source
    heads = stated.number("attention.head_count")
    size = stated.number("attention.key_length", width // heads)
    stated.expect("attention.value_length", size, width // heads)
    stated.expect("rope.dimension_count", size)  # all of a head is rotated
    return {
        "vocab_size": rows,
        "hidden_size": width,
        "head_dim": size,
        "num_hidden_layers": blocks,
        "intermediate_size": stated.number("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": stated.number("attention.head_count_kv", heads),
        "rms_norm_eps": stated.number("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": stated.number("context_length"),
        # The unembedding is written only where it is not the embedding.
        "tie_word_embeddings": "output.weight" not in tensors,
    }


def _ids(header: Header) -> dict[str, int | None]:
    """Ids of special tokens; None, and not the class's default, where none is stated."""
    names = {"bos": "bos", "eos": "eos", "pad": "padding"}
    found = {
        f"{ours}_token_id": header.metadata.get(f"tokenizer.ggml.{theirs}_token_id") for ours, theirs in names.items()
    }
    unknown = header.metadata.get("tokenizer.ggml.unknown_token_id")
    return found if unknown is None else {**found, "unk_token_id": unknown}


def _plain(stated: Stated, shared: dict[str, Any]) -> dict[str, Any]:
    return {"model_type": stated.header.architecture, "rope_parameters": _rotary(stated, shared["head_dim"])}


def _qwen2(stated: Stated, shared: dict[str, Any]) -> dict[str, Any]:
    size = shared["head_dim"]
    if size * shared["num_attention_heads"] == shared["hidden_size"]:
        del shared["head_dim"]  # which its configuration works out
    return {"model_type": "qwen2", "rope_parameters": _rotary(stated, size)}


def _gemma3(stated: Stated, shared: dict[str, Any]) -> dict[str, Any]:
    blocks, size = shared["num_hidden_layers"], shared["head_dim"]
    pattern = stated.get("attention.sliding_window_pattern", 6)
    if type(pattern) is int and pattern > 0:
        pattern = [(block + 1) % pattern > 0 for block in range(blocks)]
    if not isinstance(pattern, list) or len(pattern) != blocks:
        raise stated.refuse(
            "attention.sliding_window_pattern", f"a number, or one for each of {blocks} blocks", pattern
        )
    apart = shared["hidden_size"] // shared["num_attention_heads"]
    return {
        "model_type": "gemma3_text",
        "query_pre_attn_scalar": apart if blocks == GEMMA3_27B else size,
        "sliding_window": stated.number("attention.sliding_window"),
        "layer_types": ["sliding_attention" if each else "full_attention" for each in pattern],
        "final_logit_softcapping": stated.get("final_logit_softcapping"),
        "attn_logit_softcapping": stated.get("attn_logit_softcapping"),
        "rope_parameters": {
            "full_attention": _rotary(stated, size, base=1_000_000.0),
            "sliding_attention": {
                "rope_type": "default", "rope_theta": stated.number("rope.freq_base_swa", LOCAL_BASE),
            },
        },
    }  # fmt: skip


# general.architecture -> what its models have of their own
ARCHITECTURES: dict[str, Callable[[Stated, dict[str, Any]], dict[str, Any]]] = {
    "llama": _plain, "qwen2": _qwen2, "qwen3": _plain, "gemma3": _gemma3,
}  # fmt: skip


def _rotary(stated: Stated, size: int, base: float = 10_000.0) -> dict[str, Any]:
    """Rotary base and scaling, as transformers has them."""
    found: dict[str, Any] = {"rope_type": "default", "rope_theta": float(stated.number("rope.freq_base", base))}
    linear = stated.number("rope.scale_linear", 1.0)  # as older files have it
    kind = stated.get("rope.scaling.type", "none" if linear == 1.0 else "linear")
    factor = float(stated.number("rope.scaling.factor", linear))
    original = stated.get("rope.scaling.original_context_length")
    stated.get("rope.scaling.finetuned")  # whether the model was trained so
    stated.expect("rope.scaling.attn_factor", 1.0)
    if kind == "linear":
        found |= {"rope_type": "linear", "factor": factor}
    elif kind == "yarn":
        more = {key: stated.get(f"rope.scaling.yarn_{key}") for key in ("beta_fast", "beta_slow")}
        more["original_max_position_embeddings"] = original
        found |= {
            "rope_type": "yarn",
            "factor": factor,
            **{key: each for key, each in more.items() if each is not None},
        }
    elif kind != "none":
        raise stated.refuse("rope.scaling.type", "one of ['none', 'linear', 'yarn']", kind)
    if FREQUENCIES in stated.header.tensors:
        found |= _divided(stated.header, size, found)
    return found


def _divided(header: Header, size: int, rotary: dict[str, Any]) -> dict[str, Any]:
    """The scaling that divides the rotary frequencies by what the file holds for each."""
    divisors = dequantize(header.blocks(FREQUENCIES), header.tensors[FREQUENCIES].tensor_type).ravel()
    factor = float(divisors.max())
    frequencies = rotary["rope_theta"] ** -(np.arange(0, size, 2) / size)
    plain = rotary["rope_type"] == "default" and divisors.shape == frequencies.shape
    if not plain or not np.allclose(divisors, _llama3(frequencies, factor), rtol=1e-4):
        raise header.refuse(
            f"{FREQUENCIES}: expected {size // 2} divisors as Llama 3.1 has them, received "
            f"{shown([round(float(each), 3) for each in divisors[:4]])} and so on; give the model as a folder of "
            "safetensors, or another model"
        )
    return {"rope_type": "llama3", "factor": round(factor, 4), **LLAMA3}


def _llama3(frequencies: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """What Llama 3.1 divides each frequency by: 1 where fast, `factor` where slow, between the two in between."""
    low, high, original = LLAMA3.values()
    turns = original * frequencies / (2 * np.pi)  # in the context that it was first trained for
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    divisors: NDArray[np.float64] = 1 / ((1 - smooth) / factor + smooth)
    return divisors
