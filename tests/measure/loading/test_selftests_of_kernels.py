"""Self-tests at loading reach beyond every window, and take out kernels that are not exact."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig

from fixtures.oracles import answer_loss
from fixtures.selftested import SHAPE, WINDOW, WINDOWED, by_name, small
from fixtures.small_models import HIDDEN, PAD, VOCABULARY, letter_tokenizer
from gradinoc.errors import ModelError
from gradinoc.measure.fast import fused
from gradinoc.measure.fast.fused import fuse, windows
from gradinoc.measure.fast.packed import forward as packed
from gradinoc.measure.fast.packed.forward import is_fused
from gradinoc.measure.gradients.alignment import answer_losses
from gradinoc.measure.loading import selftests
from gradinoc.measure.loading.selftests import (
    GRADIENT,
    examine,
)
from gradinoc.measure.loading.selftests.exact import texts
from gradinoc.models.chat.encoding import Encoded


@pytest.mark.parametrize("name", sorted(WINDOWED))
def test_losses_beyond_a_window_are_those_of_each_answer_alone(name):
    """Answers shorter and longer than the window of attention, whether it is an option or in the mask alone."""
    model, exact = (small(name, **WINDOWED[name]) for _ in range(2))
    found = by_name(examine(model, letter_tokenizer()))
    generator = torch.Generator().manual_seed(1)
    examples = [
        Encoded(tuple(torch.randint(5, VOCABULARY, (6 + answer,), generator=generator).tolist()), 6)
        for answer in (14, 40, 70)
    ]
    expected = [float(answer_loss(exact, each)) for each in examples]
    assert answer_losses(model, examples, PAD, 3).tolist() == pytest.approx(expected, rel=1e-4)
    assert is_fused(model) == (name in ("gemma3_text", "mistral")), found[GRADIENT].note


@pytest.mark.parametrize("name", sorted(WINDOWED))
def test_texts_reach_beyond_every_window(name):
    """What is tried on fewer tokens than a window holds says nothing of it."""
    model = small(name, **WINDOWED[name])
    long, short = texts(letter_tokenizer(), model)
    assert len(long) > max(windows(model.config).values()) >= WINDOW
    assert 0 < len(short) < len(long)


def test_wrong_gradients_of_kernels_are_found_out(llama, monkeypatch):
    """If their own trial let them pass, the comparison with autograd does not: plain modules are put back."""
    monkeypatch.setattr(fused, "rms_norm", lambda *given: 1.05 * given[0])
    monkeypatch.setattr(selftests, "fuse", lambda model, _rows: fuse(model, trial=False))
    found = by_name(examine(llama, letter_tokenizer()))[GRADIENT]
    assert found.passed
    assert found.note.startswith("plain modules: with fused ones gradients are ")
    assert not is_fused(llama)


def test_kernels_that_fail_beyond_their_trial_are_taken_out(llama, monkeypatch):
    """As where a model's code takes another shape than attention gives it beyond a window."""

    def failing(*_):
        raise RuntimeError("view size is not compatible")

    monkeypatch.setattr(packed, "packed_attention", failing)
    monkeypatch.setattr(selftests, "fuse", lambda model, _rows: fuse(model, trial=False))
    found = by_name(examine(llama, letter_tokenizer()))[GRADIENT]
    assert found.passed
    assert found.note == "plain modules: fused ones do not fit (RuntimeError: view size is not compatible)"
    assert not is_fused(llama)


@pytest.mark.parametrize("wrong", [False, True])
def test_gradients_far_from_rounded_ones_are_compared_with_float32(llama, monkeypatch, wrong):
    """In half precision the model's own are off too: kernels are out only if they are farther from float32 than those.

    With a tolerance that no rounding meets; the fault is in the kernels' losses, which brute force does not use.
    """
    monkeypatch.setitem(selftests.GRADIENT_TOLERANCE, torch.bfloat16, 1e-6)
    monkeypatch.setattr(selftests, "fuse", lambda model, _rows: fuse(model, trial=False))
    if wrong:
        own = packed.token_losses
        monkeypatch.setattr(packed, "token_losses", lambda *given: 1.1 * own(*given))
    model = llama.bfloat16()
    found = by_name(examine(model, letter_tokenizer()))[GRADIENT]
    assert found.passed
    assert 1e-6 < found.found <= found.most < 0.05
    assert is_fused(model) != wrong


def test_wrong_gradients_of_plain_modules_are_refused(llama, monkeypatch):
    """Losses of a batch that are not each example's own are no ground for a measurement, whatever the reason."""
    own = selftests.completion_losses
    monkeypatch.setattr(selftests, "completion_losses", lambda *given: 1.01 * own(*given))
    with pytest.raises(ModelError, match=r"losses or gradients of a batch are .* from those of each"):
        examine(llama, letter_tokenizer(), "plain")


def test_windows_of_single_layers_are_known():
    """Gemma 4's layers differ in their settings: what one of them has is no attribute of the whole."""
    config = AutoConfig.for_model("gemma4_text", **SHAPE, sliding_window=WINDOW, global_head_dim=HIDDEN)
    assert config.is_heterogeneous
    assert windows(config) == {"sliding_window": WINDOW}
    of_one = {0: {"sliding_window": WINDOW}, 1: {"sliding_window": 2 * WINDOW}}
    config = AutoConfig.for_model("gemma4_text", **SHAPE, per_layer_config=of_one)
    assert windows(config) == {"sliding_window": 2 * WINDOW}
