"""Each kernel is the formula it stands for, forward and backward, to the last digits of float32."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from fixtures.oracles import agree, normal
from gradinoc.measure.fast import kernels
from gradinoc.measure.fast.adapters import lora_linear
from gradinoc.measure.fast.attention import Layout, packed_attention
from gradinoc.measure.fast.kernels import rms_norm, rotate, swiglu, token_losses


@pytest.mark.parametrize("bias", [False, True])
def test_lora_linear(bias):
    """A frozen linear map with a low-rank update: gradients for the input and for both factors."""
    weight, offset = normal(7, 5, seed=1), normal(7, seed=2) if bias else None

    def formula(x, down, up):
        return functional.linear(x, weight, offset) + 1.5 * (x @ down.T @ up.T)

    def ours(x, down, up):
        return lora_linear(x, (weight.float(), None if offset is None else offset.float()), [(down, up)], 1.5)

    agree(ours, formula, [normal(2, 6, 5), normal(3, 5, seed=3), normal(7, 3, seed=4)])


@pytest.mark.parametrize("parts", [[5, 7], [6, 6], [1, 9, 2], [4, 4, 4]], ids=str)
def test_several_adapters_each_have_their_part(parts):
    """Of a batch; each as if it were alone, whether their parts are equally long or not."""
    weight, offset = normal(7, 5, seed=1), normal(7, seed=2)

    def formula(x, *factors):
        pieces = x.flatten(0, 1).split(parts)
        updates = [piece @ down.T @ up.T for piece, down, up in zip(pieces, factors[::2], factors[1::2], strict=True)]
        return functional.linear(x, weight, offset) + 1.5 * torch.cat(updates).view(*x.shape[:2], -1)

    def ours(x, *factors):
        pairs = list(zip(factors[::2], factors[1::2], strict=True))
        return lora_linear(x, (weight.float(), offset.float()), pairs, 1.5, parts)

    factors = [normal(*shape, seed=3 + place) for place in range(len(parts)) for shape in ((3, 5), (7, 3))]
    agree(ours, formula, [normal(2, 6, 5), *factors])


@pytest.mark.parametrize("parts", [[4, 5], [5, 5]], ids=str)
def test_rows_that_are_not_those_of_the_parts_are_refused(parts):
    """Even if they could be divided by the number of adapters: experts are sent some of a batch's rows alone."""
    factors = [(normal(3, 5).float(), normal(7, 3).float())] * 2
    with pytest.raises(ValueError, match=f"expected {sum(parts)} in all, received 8"):
        lora_linear(normal(8, 5).float(), (normal(7, 5).float(), None), factors, 1.0, parts)


@pytest.mark.parametrize("parts", [[12], [5, 7], [6, 6]], ids=str)
def test_what_a_gate_gives_is_not_kept_for_the_next_map(parts):
    """It is made anew from gate and up, which are kept already: the same numbers, and less that is held."""
    weight = normal(7, 5, seed=1)

    def formula(gate, up, *factors):
        x = functional.silu(gate) * up
        pieces = zip(x.flatten(0, 1).split(parts), factors[::2], factors[1::2], strict=True)
        updates = torch.cat([piece @ down.T @ wide.T for piece, down, wide in pieces])
        return functional.linear(x, weight) + 1.5 * updates.view(*x.shape[:2], -1)

    def ours(gate, up, *factors):
        pairs, inner, kept = list(zip(factors[::2], factors[1::2], strict=True)), swiglu(gate, up), []
        with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each) or each, lambda each: each):
            result = lora_linear(inner, (weight.float(), None), pairs, 1.5, parts)
        held = {each.untyped_storage().data_ptr() for each in kept}
        assert gate.untyped_storage().data_ptr() in held
        assert inner.untyped_storage().data_ptr() not in held
        return result

    factors = [normal(*shape, seed=3 + place) for place in range(len(parts)) for shape in ((3, 5), (7, 3))]
    agree(ours, formula, [normal(2, 6, 5), normal(2, 6, 5, seed=9), *factors])


def test_adapter_gradients_stay_float32():
    """Below a bfloat16 model the adapter is still optimised in float32."""
    down, up = normal(3, 5).float().requires_grad_(), normal(7, 3).float().requires_grad_()
    x = normal(4, 5).bfloat16().requires_grad_()
    lora_linear(x, (normal(7, 5).bfloat16(), None), [(down, up)], 2.0).sum().backward()
    assert (x.grad.dtype, down.grad.dtype, up.grad.dtype) == (torch.bfloat16, torch.float32, torch.float32)


def test_rms_norm():
    """Root mean square normalisation, rows of very different lengths among them."""
    weight, x = normal(11, seed=1), normal(2, 9, 11) * torch.logspace(-3, 3, 9, dtype=torch.float64)[:, None]

    def formula(x):
        return weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)

    agree(lambda x: rms_norm(x, weight.float(), 1e-6), formula, [x])


def test_rms_norm_leaves_its_input_alone():
    """In float32 no copy is made on the way, so this has to be looked at."""
    x = normal(3, 5).float()
    before = x.clone()
    rms_norm(x, torch.ones(5), 1e-6)
    assert torch.equal(x, before)


def test_swiglu():
    """The gated unit of Llama and its kin."""
    agree(swiglu, lambda gate, up: functional.silu(gate) * up, [normal(3, 8), normal(3, 8, seed=1)])


@pytest.mark.parametrize("more", [0, 3])
def test_rotation_is_a_complex_product(more):
    """Each pair (i, i + half) is a complex number, turned by its position's angle; the rest of a head stays."""
    angles = normal(1, 6, 4)
    cos, sin = (torch.cat([part, part], dim=-1) for part in (angles.cos(), angles.sin()))

    def formula(q, k):
        turn = torch.polar(torch.ones_like(angles), angles)[:, None]
        both = [torch.complex(x[..., :4], x[..., 4:8]) * turn for x in (q, k)]
        parts = zip(both, (q, k), strict=True)
        return torch.cat([torch.cat([x.real, x.imag, own[..., 8:]], dim=-1) for x, own in parts], dim=1)

    agree(
        lambda q, k: torch.cat(rotate(q, k, cos.float(), sin.float()), dim=1),
        formula,
        [normal(1, 3, 6, 8 + more), normal(1, 2, 6, 8 + more, seed=1)],
    )


@given(st.integers(1, 20), st.sampled_from([1, 3, 128]))
def test_token_losses_are_cross_entropies(tokens, chunk):
    """Whatever part of the batch has logits at a time; each token's loss may carry another weight."""
    weight = normal(13, 5, seed=1) * 3
    targets = torch.randint(13, (tokens,), generator=torch.Generator().manual_seed(0))
    whole, kernels.CHUNK = kernels.CHUNK, chunk
    try:
        agree(
            lambda hidden: token_losses(hidden, weight.float(), targets),
            lambda hidden: functional.cross_entropy(hidden @ weight.T, targets, reduction="none"),
            [normal(tokens, 5) * 3],
        )
        hidden = normal(tokens, 5) * 3
        expected = functional.cross_entropy(hidden @ weight.T, targets, reduction="none")
        with torch.no_grad():  # which lays the logits out another way
            found = token_losses(hidden.float(), weight.float(), targets)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    finally:
        kernels.CHUNK = whole


@given(st.integers(1, 20), st.sampled_from([3, 128]), st.sampled_from([0.5, 30.0]))
def test_token_losses_of_capped_logits(tokens, chunk, cap):
    """A cap, near it and far from it, as Gemma 2 has; with gradients and without."""
    weight, hidden = normal(13, 5, seed=1) * 3, normal(tokens, 5)
    targets = torch.randint(13, (tokens,), generator=torch.Generator().manual_seed(0))

    def formula(hidden):
        return functional.cross_entropy(cap * torch.tanh(hidden @ weight.T / cap), targets, reduction="none")

    whole, kernels.CHUNK = kernels.CHUNK, chunk
    try:
        agree(lambda hidden: token_losses(hidden, weight.float(), targets, cap), formula, [hidden])
        with torch.no_grad():
            found = token_losses(hidden.float(), weight.float(), targets, cap)
        torch.testing.assert_close(found.double(), formula(hidden), rtol=1e-5, atol=1e-5)
    finally:
        kernels.CHUNK = whole


def test_token_losses_hold_for_logits_far_from_zero():
    """A token that is certain costs nothing, one that is ruled out costs its logit; nothing overflows."""
    weight, hidden = torch.eye(3), torch.tensor([[300.0, 0.0, 0.0], [300.0, 0.0, 0.0]])
    assert token_losses(hidden, weight, torch.tensor([0, 1])).tolist() == [0.0, 300.0]


@pytest.mark.parametrize("name", ["lora", "norm", "gate", "rotation", "losses", "attention"])
def test_kernels_are_differentiated_once(name):
    """A penalty on a gradient needs a second time: refused, where it would be a constant or a wrong number."""
    matrix, down, up, angles = (normal(*shape).float() for shape in ((8, 8), (3, 8), (8, 3), (1, 4, 8)))
    function = {
        "lora": lambda x: lora_linear(x, (matrix, None), [(down, up)], 1.0),
        "norm": lambda x: rms_norm(x, matrix[0], 1e-6),
        "gate": lambda x: swiglu(x, x),
        "rotation": lambda x: rotate(x, x, angles.cos(), angles.sin())[0],
        "losses": lambda x: token_losses(x.flatten(0, 2), matrix, torch.arange(4)),
        "attention": lambda x: packed_attention(x, x, x, Layout.of([1, 3]), 1.0),
    }[name]
    x = normal(1, 1, 4, 8).float().requires_grad_()
    for summed in (function(x), function(x).square()):  # what comes from above is a constant, and is not
        with pytest.raises(NotImplementedError, match="differentiated once; kernels='plain'"):
            torch.autograd.grad(summed.sum(), x, create_graph=True)
