"""Models, vectors and examples of the tests of steering."""

from __future__ import annotations

import pytest
import torch

from fixtures.small_models import HIDDEN, LAYERS
from fixtures.steered import BAND, MODELS, frozen
from gradinoc.measure.fast.packed import packing
from gradinoc.models.chat.encoding import Encoded


@pytest.fixture(params=["plain", "fused"])
def kernels(request):
    """On which modules."""
    return request.param


@pytest.fixture(params=sorted(MODELS))
def model(request, kernels):
    """Every architecture, both ways."""
    return frozen(request.param, kernels)


@pytest.fixture(params=["llama", "gemma3", "qwen3_5"])
def some_model(request, kernels):
    """Full attention, windows, a recurrent state."""
    return frozen(request.param, kernels)


@pytest.fixture
def vector():
    """One vector a layer."""
    rows = 2 * torch.randn(LAYERS, HIDDEN, generator=torch.Generator().manual_seed(4))
    return {layer: rows[layer] for layer in BAND}


@pytest.fixture
def vectors(examples):
    """A vector for each example, in each layer."""
    rows = 2 * torch.randn(LAYERS, len(examples), HIDDEN, generator=torch.Generator().manual_seed(5))
    return {layer: rows[layer] for layer in BAND}


@pytest.fixture
def alike(examples, monkeypatch):
    """The examples behind beginnings that some of them have in common, two of them the whole prompt."""
    monkeypatch.setattr(packing, "SHARED_FROM", 3)
    beginnings = ((5, 6, 7, 8), (5, 6, 7, 9), (9,), (5, 6, 7, 8), (5, 6, 7, 9, 10))
    rows = [
        Encoded(begin + each.ids, len(begin) + each.prompt_length)
        for begin, each in zip(beginnings, examples, strict=True)
    ]
    last = rows[-1]
    return [
        *rows[:-1],
        last,
        Encoded((*last.ids[: last.prompt_length], *last.ids[last.prompt_length :][:1], 12), last.prompt_length),
    ]
