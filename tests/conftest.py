"""What the tests share: one thread, small models, and padded batches made by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

from fixtures.small_models import ARCHITECTURES, END, VOCABULARY, with_lora
from gradinoc.models.chat.encoding import Encoded

# How long an example takes says nothing on a busy machine.
settings.register_profile("gradinoc", deadline=None)
settings.load_profile("gradinoc")

SHAPES = ((4, 3), (9, 5), (2, 1), (6, 7), (11, 4))  # prompt and completion tokens of the examples


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Models this small gain nothing from more threads, and pay for them dearly when tests run side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=sorted(ARCHITECTURES))
def frozen_model(request):
    """A small random model of each architecture, its weights frozen."""
    return ARCHITECTURES[request.param]().requires_grad_(False)


@pytest.fixture(params=["plain", "peft"])
def either_model(request, frozen_model):
    """The same, bare and with an adapter that changes what it computes."""
    return with_lora(frozen_model).requires_grad_(False) if request.param == "peft" else frozen_model


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A folder of the test's own for converted models."""
    monkeypatch.setenv("GRADINOC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def examples():
    """Prompts and completions of different lengths, of random tokens; each completion closes its turn."""
    generator = torch.Generator().manual_seed(1)
    return [
        Encoded((*torch.randint(5, VOCABULARY, (prompt + answer,), generator=generator).tolist(), END), prompt)
        for prompt, answer in SHAPES
    ]
