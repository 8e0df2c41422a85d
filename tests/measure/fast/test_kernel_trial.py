"""Kernels that compute something else than a model's own modules, or round more than they do, are found out."""

from __future__ import annotations

import re

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from fixtures.small_models import ARCHITECTURES, LAYERS
from gradinoc.measure.fast import fused
from gradinoc.measure.fast.attention import Layout, packed_attention
from gradinoc.measure.fast.fused import fuse
from gradinoc.measure.fast.kernels import rotate
from gradinoc.measure.fast.packed import forward as packed
from gradinoc.measure.fast.packed.forward import is_fused


def frozen(name):
    """A small random model, frozen."""
    return ARCHITECTURES[name]().requires_grad_(False)


def attend_to_all(q, k, v, layout, scale, _window):
    """Attention that is not causal within a sequence, as some versions of torch have it on some devices."""
    parts = [(q[:, :, at.queries], k[:, :, at.keys], v[:, :, at.keys]) for at in layout.own]
    return torch.cat([scaled_dot_product_attention(*part, scale=scale, enable_gqa=True) for part in parts], dim=2)


def attend_to_neighbours(q, k, v, _layout, scale, _window):
    """Attention over the whole pack, as a model without ours would have it."""
    return packed_attention(q, k, v, Layout.of([q.shape[2]]), scale)


def attend_without_beginnings(q, k, v, layout, scale, _window):
    """Attention of branches that miss the beginning they share."""
    return packed_attention(q, k, v, Layout(layout.own), scale)


WRONG = {
    "norm": (fused, "rms_norm", lambda *given: 1.05 * given[0]),
    "NaN": (fused, "rms_norm", lambda *given: given[0] * torch.nan),
    "later tokens": (packed, "packed_attention", attend_to_all),
    "neighbours": (packed, "packed_attention", attend_to_neighbours),
    "shared beginnings": (packed, "packed_attention", attend_without_beginnings),
}


@pytest.mark.parametrize("fault", WRONG)
def test_kernel_that_is_wrong_is_found_out(monkeypatch, fault):
    """The trial compares losses and gradients; a model that would compute something else stays as it is."""
    monkeypatch.setattr(*WRONG[fault])
    model = frozen("llama")
    before = {module: module.forward.__func__ for module in model.modules()}
    (note,) = fuse(model)
    assert note.startswith("plain modules: ")
    assert not is_fused(model)
    assert {module: module.forward.__func__ for module in model.modules()} == before


def scaled(kernel):
    """The kernel, 2 % too large."""
    return lambda *given: 1.02 * kernel(*given)


def coarse(kernel):
    """The kernel, right in float32, with three bits more of rounding in half precision."""
    return lambda *given: kernel(*given) if given[0].dtype == torch.float32 else kernel(*given).to(torch.float8_e5m2)


OFF = {
    "norm": (fused, "rms_norm", scaled(fused.rms_norm)),
    "gate": (fused, "swiglu", scaled(fused.swiglu)),
    "rotation": (fused, "rotate", lambda q, k, *angles: rotate(1.02 * q, k, *angles)),
    "attention": (packed, "packed_attention", lambda *given: packed_attention(*given[:4], 1.02 * given[4], *given[5:])),
    "losses": (packed, "token_losses", scaled(packed.token_losses)),
}


@pytest.mark.parametrize("fault", OFF)
def test_kernel_that_is_off_by_2_percent_is_found_out_in_bfloat16(monkeypatch, fault):
    """Which is less than rounding comes to: the formula is tried in float32, with the weights the model has."""
    assert fuse(frozen("llama").bfloat16())[0].startswith(f"{4 * LAYERS + 2} modules fused")
    monkeypatch.setattr(*OFF[fault])
    (note,) = fuse(frozen("llama").bfloat16())
    without = r"plain modules: fused ones are [\d.]+ away, computed in float32"
    if fault == "rotation":  # the other kernels are tried without it
        without = rf"{3 * LAYERS + 2} modules fused.*packed"
    assert re.fullmatch(without, note)


def test_kernel_that_rounds_more_than_the_model_is_refused(monkeypatch):
    """Of two roundings the one that is farther from float32 is refused, and both distances are said."""
    right = fused.rms_norm
    monkeypatch.setattr(fused, "rms_norm", lambda x, *rest: coarse(right)(x, *rest).to(x.dtype))
    (note,) = fuse(frozen("llama").bfloat16())
    assert re.fullmatch(
        r"plain modules: with fused ones (losses|gradients) [\d.]+ from float32's, the model's own modules [\d.]+", note
    )


def test_model_that_rounds_more_than_kernels_is_fused(monkeypatch):
    """However far the two are apart: it is the model's own modules that are far from float32."""
    model = frozen("llama").bfloat16()
    own = type(model.model.layers[1].mlp).forward
    monkeypatch.setattr(
        type(model.model.layers[1].mlp),
        "forward",
        lambda mlp, x: own(mlp, x) if x.dtype == torch.float32 else own(mlp, x).to(torch.float8_e5m2).to(x.dtype),
    )
    (note,) = fuse(model)
    assert note.endswith("sequences packed"), note


def test_rounding_on_a_few_tokens_is_tried_again_on_more(monkeypatch):
    """Chance does not decide: kernels that two texts speak against are tried on all of them."""
    tried, right = [], fused.try_kernels

    def unlucky(model, rows, own):
        tried.append(len(rows))
        if len(rows) == 2:
            raise fused.RoundingError("by chance")
        return right(model, rows, own)

    monkeypatch.setattr(fused, "try_kernels", unlucky)
    assert fuse(frozen("llama").bfloat16())[0].endswith("sequences packed")
    assert tried == [2, 6]
