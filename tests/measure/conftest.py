"""Small models of each architecture."""

from __future__ import annotations

import pytest

from fixtures.small_models import ARCHITECTURES, with_lora


@pytest.fixture(params=sorted(ARCHITECTURES))
def frozen_model(request):
    """A small random model of each architecture, its weights frozen."""
    return ARCHITECTURES[request.param]().requires_grad_(False)


@pytest.fixture
def llama():
    """A small Llama, frozen."""
    return ARCHITECTURES["llama"]().requires_grad_(False)


@pytest.fixture(params=["plain", "peft"])
def either_model(request, frozen_model):
    """The same, bare and with an adapter that changes what it computes."""
    return with_lora(frozen_model).requires_grad_(False) if request.param == "peft" else frozen_model
