"""In half precision the kernels lose no more digits than torch's own operations do."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from gradinoc.measure.fast.attention import Layout, packed_attention
from gradinoc.measure.fast.kernels import token_losses


def normal(*shape, seed=0):
    """Standard normal float64 numbers."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["attention", "losses"])
def test_bfloat16_is_rounding_away(name):
    """In half precision the kernels are as near to the exact numbers as torch's own operations are."""
    lengths = [30, 50]
    q, k, v = (normal(1, 2, 80, 16, seed=s) for s in range(3))
    rows, matrix = normal(80, 16), normal(40, 16, seed=1)
    targets = torch.arange(80) % 40

    def native_attention(q, k, v):
        parts = zip(*(each.split(lengths, dim=2) for each in (q, k, v)), strict=True)
        return torch.cat([functional.scaled_dot_product_attention(*part, is_causal=True) for part in parts], dim=2)

    ours, native, inputs = {
        "attention": (lambda q, k, v: packed_attention(q, k, v, Layout.of(lengths), 0.25), native_attention, [q, k, v]),
        "losses": (
            lambda x: token_losses(x, matrix.to(x.dtype), targets),
            lambda x: functional.cross_entropy((x @ matrix.to(x.dtype).T).float(), targets, reduction="none"),
            [rows],
        ),
    }[name]

    def computed(function, dtype):
        given = [each.to(dtype).requires_grad_() for each in inputs]
        out = function(*given)
        gradients = torch.autograd.grad(out, given, torch.ones_like(out))
        return torch.cat([each.detach().double().flatten() for each in (out, *gradients)])

    exact = computed(native, torch.float64)
    mine, theirs = (float((computed(f, torch.bfloat16) - exact).norm() / exact.norm()) for f in (ours, native))
    assert mine < 1.5 * theirs + 1e-3, f"{name}: {mine:.2g} away from the exact numbers, torch's own {theirs:.2g}"


def test_what_all_keys_share_costs_no_digits_in_bfloat16():
    """Biases of keys cancel in the softmax, as in Qwen2, where they are in the hundreds; so does their rounding."""
    q, k, v, upstream = (normal(1, 2, 40, 16, seed=s).bfloat16() for s in range(4))
    k = k + 100 * normal(1, 2, 1, 16, seed=5).bfloat16()

    def gradient(function, dtype):
        given = q.to(dtype).requires_grad_()
        out = function(given, k.to(dtype), v.to(dtype))
        return torch.autograd.grad(out, given, upstream.to(dtype))[0].double()

    def native(q, k, v):
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.01)

    exact = gradient(native, torch.float64)
    mine = gradient(lambda q, k, v: packed_attention(q, k, v, Layout.of([40]), 0.01), torch.bfloat16)
    theirs = gradient(native, torch.bfloat16)
    mine, theirs = (float((found - exact).norm() / exact.norm()) for found in (mine, theirs))
    assert mine < theirs, f"{mine:.2g} of the norm away, torch's own {theirs:.2g}"


def test_gradient_of_a_sure_token_keeps_its_digits_in_bfloat16():
    """Of p - 1 nothing is left in eight bits where p > 0.999; against float64, relative to each gradient's own norm."""
    # Multiples of 1/2 and 1/4 of up to eight bits: inputs and logits are exact in bfloat16.
    weight = torch.randint(-2, 3, (40, 48), generator=torch.Generator().manual_seed(0)).double() / 2
    sure = (weight / 2 @ weight.T).softmax(-1).diagonal() > 0.999
    targets, hidden = sure.nonzero().flatten(), weight[sure] / 2
    logits = hidden @ weight.T
    assert torch.equal(logits.bfloat16().double(), logits)
    change = logits.softmax(-1) - functional.one_hot(targets, 40)
    exact = change @ weight
    given = hidden.bfloat16().requires_grad_()
    (found,) = torch.autograd.grad(token_losses(given, weight.bfloat16(), targets).sum(), given)
    # Each coefficient is rounded once (2^-8), and the result as a product and again after its division.
    coefficients = (change.abs() @ weight.norm(dim=-1)) / exact.norm(dim=-1)
    apart = (found.double() - exact).norm(dim=-1) / exact.norm(dim=-1)
    assert len(targets) > 10
    assert (apart < 2**-8 * (coefficients + 2)).all(), f"{float(apart.max()):.2g} of the norm away"
