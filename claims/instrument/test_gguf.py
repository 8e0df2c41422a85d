"""GGUF files: the model, its numbers and its tokens are those that the file states, or it is refused in one line."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFReader
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from fixtures.gguf_files import byte_level, metadata_of, sentencepiece, tensors_of, write_gguf
from gradinoc.gguf import weights
from gradinoc.gguf.header import read_header
from gradinoc.models import load_model

SHAPE = {
    "vocab_size": 704, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.2, "rms_norm_eps": 1e-5,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 64}


def rope(base: float, kind: str = "default", **more) -> dict:
    """Rotary settings of one kind of layer."""
    return {"rope_type": kind, "rope_theta": base, **more}


def gemma(full: dict, local: float = 10_000.0, **own):
    """A Gemma 3 whose layers see six tokens, but for the last of every six."""
    parameters = {"full_attention": full, "sliding_attention": rope(local)}
    shape = {**SHAPE, "num_hidden_layers": 7, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 6}
    return Gemma3ForCausalLM, Gemma3TextConfig, {**shape, "rope_parameters": parameters, **own}


FAR = 1_000_000.0
PATTERN = [True, False] * 3 + [True]
SLIDING = ["sliding_attention" if each else "full_attention" for each in PATTERN]
# name -> class, configuration, its settings; and what the converter states besides.
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig, {**SHAPE, "head_dim": 16}),
    "llama, tied": (LlamaForCausalLM, LlamaConfig, {**SHAPE, "head_dim": 16, "tie_word_embeddings": True}),
    "llama, wide heads": (LlamaForCausalLM, LlamaConfig, {**SHAPE, "head_dim": 32}),
    "llama, base": (LlamaForCausalLM, LlamaConfig, {**SHAPE, "rope_parameters": rope(FAR)}),
    "llama, linear": (LlamaForCausalLM, LlamaConfig, {**SHAPE, "rope_parameters": rope(1e4, "linear", factor=4.0)}),
    "llama 3.1": (LlamaForCausalLM, LlamaConfig, {**SHAPE, "rope_parameters": LLAMA3}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, SHAPE),
    "qwen2, tied": (Qwen2ForCausalLM, Qwen2Config, {**SHAPE, "tie_word_embeddings": True}),
    "qwen2, yarn": (Qwen2ForCausalLM, Qwen2Config, {**SHAPE, "rope_parameters": YARN}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {**SHAPE, "head_dim": 32}),
    "qwen3, tied": (Qwen3ForCausalLM, Qwen3Config, {**SHAPE, "head_dim": 16, "tie_word_embeddings": True}),
    "gemma3": gemma(rope(FAR)),
    "gemma3, untied": gemma(rope(FAR), tie_word_embeddings=False),
    "gemma3, linear": gemma(rope(FAR, "linear", factor=8.0)),
    "gemma3, local base": gemma(rope(FAR), local=20_000.0),
    "gemma3, pattern": gemma(rope(FAR), layer_types=SLIDING),
    "gemma3, capped": gemma(rope(FAR), final_logit_softcapping=3.0),
}  # fmt: skip
BESIDES = {
    "gemma3, local base": {"gemma3.rope.freq_base_swa": 20_000.0},
    "gemma3, pattern": {"gemma3.attention.sliding_window_pattern": PATTERN},
    "gemma3, capped": {"gemma3.final_logit_softcapping": 3.0},
}


def build(name: str):
    """The model, always the same one, with norms and biases that are not those it begins with."""
    kind, config, settings = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(config(**settings, bos_token_id=None, eos_token_id=None, pad_token_id=None)).eval()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def vocabulary(arch: str) -> dict:
    """A tokenizer such as files of that kind have."""
    found = {"gemma3": lambda: sentencepiece(prefix=False), "llama": byte_level}
    return found.get(arch, lambda: byte_level("qwen2"))()


def written(path, name: str = "llama", kind=Kind.F32, drop=(), **changes):
    """A GGUF file of that model; `changes` to metadata by key (`.` as `__`), and tensors to leave out."""
    model = build(name)
    metadata = metadata_of(model)
    arch = metadata["general.architecture"]
    metadata |= {**vocabulary(arch), **BESIDES.get(name, {})}
    metadata |= {key.replace("__", "."): value for key, value in changes.items()}
    tensors = {key: value for key, value in tensors_of(model).items() if key not in drop}
    return write_gguf(path, metadata, tensors, kind)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("GRADINOC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def plain(path):
    """What `load_model` makes of a path, on the CPU, with the model's own modules."""
    return load_model(str(path), device="cpu", kernels="plain")


# --- the model


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_the_same_model_built_directly(tmp_path, name):
    """Rotation, norms, windows, bases, scalings, heads, tied or not: over more tokens than a window holds."""
    loaded = plain(written(tmp_path / "model.gguf", name))
    ids = torch.arange(3, 99)[None] * 7 % SHAPE["vocab_size"]
    with torch.no_grad():
        found, expected = loaded.model(ids).logits, build(name)(ids).logits
    exact = not name.startswith("gemma3")  # whose norms lose a bit to the 1 that is added and taken away
    assert expected.std() > 0.1
    assert torch.equal(found, expected) if exact else torch.allclose(found, expected, atol=1e-4), name


HELD = [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1]


@pytest.mark.parametrize("kind", HELD, ids=lambda kind: kind.name)
@pytest.mark.parametrize("small", [True, False], ids=["tiny", "larger"])
def test_weights_are_what_the_gguf_package_unpacks(tmp_path, monkeypatch, kind, small):
    """Bit for bit: plain numbers as they are, blocks in float32 in a tiny model, and rounded once in a larger one."""
    path = written(tmp_path / "model.gguf", "qwen2", kind)
    monkeypatch.setattr(weights, "AT_A_TIME", 1000)  # a few rows
    if not small:
        monkeypatch.setattr(weights, "SMALL", 0)
    model = weights.load_weights(read_header(path), heads_config(path))
    blocks = kind not in weights.PLAIN
    names = {
        "token_embd.weight": "model.embed_tokens.weight",
        "blk.1.ffn_down.weight": "model.layers.1.mlp.down_proj.weight",
    }
    tensors = {each.name: each for each in GGUFReader(path).tensors}
    for theirs, ours in names.items():
        expected = torch.from_numpy(np.array(gguf.dequantize(tensors[theirs].data, tensors[theirs].tensor_type)))
        dtype = torch.bfloat16 if blocks and not small else torch.float32 if blocks else weights.PLAIN[kind]
        found = model.state_dict()[ours]
        assert found.dtype == dtype
        assert torch.equal(found, expected.to(dtype))
        assert blocks is not torch.equal(expected, build("qwen2").state_dict()[ours]) or kind is not Kind.F32


def heads_config(path):
    """The configuration of the model in a file."""
    from gradinoc.gguf.architectures import config_of

    return config_of(read_header(path))
