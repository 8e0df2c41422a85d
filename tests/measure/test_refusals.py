"""What is asked for wrongly is refused where it is asked for, and by name."""

from __future__ import annotations

import pytest

from fixtures.small_models import letter_tokenizer
from gradinoc.measure.fast.fused import fuse
from gradinoc.measure.loading.load import load_model
from gradinoc.measure.passes.hooks import ActivationCollector
from gradinoc.models.generate import generate


def test_collector_outside_its_block_is_refused(llama):
    """Without hooks there is nothing to read."""
    with pytest.raises(RuntimeError, match="as `with ActivationCollector"):
        ActivationCollector(llama, [0]).get_activations(None, "last_prompt_token")


def test_unknown_kernels_are_refused():
    """Before anything is loaded."""
    with pytest.raises(ValueError, match="'quick': expected fused or plain"):
        load_model("obedient", kernels="quick")


def test_prompt_without_tokens_is_refused(llama):
    """There is nothing to continue."""
    with pytest.raises(ValueError, match=r"\[1\] hold no token"):
        generate(llama, letter_tokenizer(), [[5], []], 2, 2)


def test_fused_model_is_fused_once(llama):
    """A second call changes nothing."""
    llama.requires_grad_(False)
    fuse(llama)
    before = {module: vars(module).get("forward") for module in llama.modules()}
    assert fuse(llama) == ["fused already"]
    assert {module: vars(module).get("forward") for module in llama.modules()} == before
