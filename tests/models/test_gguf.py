"""GGUF files: the model and its numbers are those that the file states."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFReader

from fixtures.gguf_files import (
    plain,
    written,
)
from fixtures.gguf_models import MODELS, SHAPE, build
from gradinoc.models.sources.gguf import architectures, weights
from gradinoc.models.sources.gguf.architectures import config_of
from gradinoc.models.sources.gguf.header import read_header

pytestmark = pytest.mark.usefixtures("cache")


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


def test_largest_gemma_scales_attention_by_its_width(tmp_path, monkeypatch):
    """As llama.cpp does for 62 blocks, here for seven: by what each head would have of the width."""
    monkeypatch.setattr(architectures, "GEMMA3_27B", 7)
    assert config_of(read_header(written(tmp_path / "model.gguf", "gemma3, wide heads"))).query_pre_attn_scalar == 16
    monkeypatch.undo()
    assert config_of(read_header(tmp_path / "model.gguf")).query_pre_attn_scalar == 32


HELD = [Kind.F32, Kind.BF16, Kind.Q8_0, Kind.Q4_1]


@pytest.mark.parametrize("kind", HELD, ids=lambda kind: kind.name)
@pytest.mark.parametrize("small", [True, False], ids=["tiny", "larger"])
def test_weights_are_what_the_gguf_package_unpacks(tmp_path, monkeypatch, kind, small):
    """Bit for bit: plain numbers as they are, blocks in float32 in a tiny model, and rounded once in a larger one."""
    path = written(tmp_path / "model.gguf", "qwen2", kind)
    monkeypatch.setattr(weights, "AT_A_TIME", 1000)  # a few rows
    if not small:
        monkeypatch.setattr(weights, "SMALL", 0)
    model = weights.load_weights(read_header(path), config_of(read_header(path)))
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
