"""Attention of packed sequences is that of each branch of their tree alone, forward and backward."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from fixtures.oracles import agree, normal
from gradinoc.measure.fast import attention
from gradinoc.measure.fast.attention import Layout, packed_attention

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=4)


@given(LENGTHS, st.sampled_from([1, 3]), st.sampled_from([2, 128]))
def test_attention_of_packed_sequences_is_that_of_each_alone(lengths, groups, block):
    """Softmax of causal scores, written out, sequence by sequence; any lengths, grouped heads, any block of queries."""
    tokens, key_heads = sum(lengths), 2

    def formula(q, k, v):
        k, v = (each.repeat_interleave(groups, dim=1) for each in (k, v))
        parts = []
        for query, key, value in zip(*(each.split(lengths, dim=2) for each in (q, k, v)), strict=True):
            scores = query @ key.transpose(-1, -2) * 0.4
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            parts.append(scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value)
        return torch.cat(parts, dim=2)

    inputs = [normal(1, key_heads * groups, tokens, 8), *(normal(1, key_heads, tokens, 8, seed=s) for s in (1, 2))]
    whole, attention.QUERIES = attention.QUERIES, block
    try:
        agree(lambda q, k, v: packed_attention(q, k, v, Layout.of(lengths), 0.4), formula, inputs)
    finally:
        attention.QUERIES = whole


@st.composite
def trees(draw):
    """Lengths of pieces in the order of a tree, and which one each goes on from (-1: none)."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=7))
    parents = [-1]
    for _ in lengths[1:]:
        branch, at = [-1], len(parents) - 1
        while at >= 0:  # only the last branch can still grow
            branch.append(at)
            at = parents[at]
        parents.append(draw(st.sampled_from(sorted(branch))))
    return lengths, parents


@given(trees(), st.sampled_from([1, 3]), st.sampled_from([1, 3, 100]))
def test_attention_along_a_tree_is_that_of_each_branch_alone(tree, groups, window):
    """Every token sees those before it in its own piece and all of the pieces above, or the nearest of them."""
    lengths, parents = tree
    owner = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    above = [{piece} for piece in range(len(lengths))]
    for piece, parent in enumerate(parents):
        above[piece] |= above[parent] if parent >= 0 else set()
    places, before = range(len(owner)), [0, *torch.tensor(lengths).cumsum(0).tolist()]
    starts = [sum(lengths[each] for each in above[piece] - {piece}) for piece in range(len(lengths))]
    depth = torch.tensor([starts[piece] + place - before[piece] for place, piece in enumerate(owner.tolist())])
    seen = torch.tensor(
        [[key <= query and int(owner[key]) in above[owner[query]] for key in places] for query in places]
    )
    below = [
        sum(lengths[other] for other in range(len(lengths)) if piece in above[other] - {other})
        for piece in range(len(lengths))
    ]
    inputs = [normal(1, 2 * groups, len(owner), 8), 5 * normal(1, 2, len(owner), 8, seed=1)]
    inputs.append(normal(1, 2, len(owner), 8, seed=2))
    near, layout = seen & (depth[:, None] - depth < window), Layout.of(lengths, below)

    def exact(mask):
        return lambda q, k, v: functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, scale=0.4, enable_gqa=True
        )

    def capped(mask):
        def formula(q, k, v):
            k, v = (each.repeat_interleave(groups, dim=1) for each in (k, v))
            scores = 2.0 * torch.tanh(0.4 * q @ k.mT / 2.0)
            return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v

        return formula

    agree(lambda q, k, v: packed_attention(q, k, v, layout, 0.4), exact(seen), inputs)
    agree(lambda q, k, v: packed_attention(q, k, v, layout, 0.4, window), exact(near), inputs)
    agree(lambda q, k, v: packed_attention(q, k, v, layout, 0.4, window, 2.0), capped(near), inputs)
    in_parts = torch.cat([attention._along(*inputs, *each, 0.4, 10**6, None) for each in layout.branches], dim=2)
    torch.testing.assert_close(in_parts, exact(seen)(*inputs))  # as on a GPU, where there are few pieces or many
    for expected, size, cap in ((exact(seen), 10**6, None), (exact(near), window, None), (capped(near), window, 2.0)):
        found = attention._side_by_side(*inputs, layout, 0.4, size, cap)
        torch.testing.assert_close(found, expected(*inputs), rtol=1e-5, atol=1e-5)  # a softmax in float32


def test_attention_far_from_zero_stays_finite():
    """Scores of a thousand: what is subtracted from them is subtracted before anything is exponentiated."""
    q, k, v = (60 * normal(1, 2, 12, 8, seed=s).float() for s in range(3))
    q.requires_grad_()
    packed_attention(q, k, v, Layout.of([5, 7]), 1.0).sum().backward()
    assert torch.isfinite(q.grad).all()
