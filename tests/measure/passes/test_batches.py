"""Batches hold their examples and nothing else, padded, packed, or with beginnings held once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradinoc.measure.fast.packed import packing
from gradinoc.measure.fast.packed.packing import Shared, pack, pack_ends, pack_shared, share
from gradinoc.measure.passes.batches import collate
from gradinoc.models.chat.encoding import Encoded

EXAMPLES = st.lists(
    st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.lists(st.integers(0, 9), min_size=1, max_size=6)),
    min_size=1,
    max_size=5,
)


@given(EXAMPLES, st.integers(0, 9))
def test_batch_holds_its_examples_and_nothing_else(parts, pad):
    """Whatever the lengths, and though the pad id occurs in prompts and completions: padding is told by place alone."""
    examples = [Encoded((*prompt, *completion), len(prompt)) for prompt, completion in parts]
    batch = collate(examples, pad)
    width = max(len(example.ids) for example in examples)
    assert len(batch) == len(examples)
    assert batch.input_ids.shape == batch.position_ids.shape == batch.attention_mask.shape == (len(examples), width)
    for row, (prompt, completion) in enumerate(parts):
        padding = width - len(prompt) - len(completion)
        assert batch.input_ids[row].tolist() == prompt + completion + [pad] * padding
        assert batch.attention_mask[row].tolist() == [1] * (width - padding) + [0] * padding
        assert batch.position_ids[row, : width - padding].tolist() == list(range(width - padding))
        assert batch.last_prompt[row] == row * width + len(prompt) - 1
    assert batch.shortest_prompt == min(len(prompt) for prompt, _ in parts)
    assert batch.predicting.tolist() == (batch.completion - 1).tolist()
    _check_completions(batch, parts)


# Few token ids, so that beginnings are often alike; some are given twice.
SEQUENCES = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9).map(tuple), min_size=1, max_size=7)


@given(SEQUENCES, st.integers(1, 4), st.integers(1, 2))
def test_shared_beginnings_are_held_once(sequences, least, copies):
    """Each sequence is found at its places, in pieces that say which tokens after them go on from them."""
    whole, packing.SHARED_FROM = packing.SHARED_FROM, least
    try:
        shared = Shared.joined([share(sequences)] * copies)
    finally:
        packing.SHARED_FROM = whole
    assert [tuple(shared.ids[place] for place in places) for places in shared.places] == sequences * copies
    for places in shared.places:
        assert [shared.position_ids[place] for place in places] == list(range(len(places)))
        assert list(places) == sorted(places)
    assert sum(shared.lengths) == len(shared.ids)
    assert all(length > 0 for length in shared.lengths)
    starts = [sum(shared.lengths[:piece]) for piece in range(len(shared.lengths))]
    for start, length, below in zip(starts, shared.lengths, shared.below, strict=True):
        first, last = start + length, start + length + below
        for places in shared.places:  # what lies below sees the whole piece, and nothing else does
            if set(places) & set(range(first, last)):
                assert set(range(start, first)) <= set(places)
            elif places[-1] >= last:
                assert not set(range(start, first)) & set(places)
    per_copy = len(shared.ids) // copies
    assert set().union(*shared.places[: len(sequences)]) == set(range(per_copy)), "a token that no sequence has"
    assert per_copy == _tokens_held(sorted(sequences), least)


def _tokens_held(sequences, least, depth=0):
    """Tokens from `depth` on of sequences in order, if beginnings of `least` more tokens are held once; brute force."""
    groups = {}
    for sequence in sequences:
        if len(sequence) - depth >= least:
            groups.setdefault(sequence[: depth + least], []).append(sequence)
    total = sum(len(sequence) - depth for sequence in sequences if len(sequence) - depth < least)
    for group in groups.values():
        common = max(n for n in range(depth, len(group[0]) + 1) if len({sequence[:n] for sequence in group}) == 1)
        total += common - depth + _tokens_held([each for each in group if len(each) > common], least, common)
    return total


@pytest.mark.parametrize("packed", [pack, pack_ends, lambda examples: pack_shared(examples, copies=2)])
@given(EXAMPLES)
def test_packed_batch_predicts_every_completion(packed, parts):
    """From the token before it in its own example, wherever that lies."""
    examples = [Encoded((*prompt, *completion), len(prompt)) for prompt, completion in parts]
    batch = _sharing_two(packed, examples)
    parts = parts * (len(batch) // len(parts))
    _check_completions(batch, parts)
    before = [token for prompt, completion in parts for token in [prompt[-1], *completion[:-1]]]
    assert batch.input_ids.flatten()[batch.predicting].tolist() == before
    positions = [place for prompt, rest in parts for place in range(len(prompt) - 1, len(prompt) + len(rest) - 1)]
    assert batch.position_ids.flatten()[batch.predicting].tolist() == positions
    assert batch.input_ids.flatten()[batch.last_prompt].tolist() == [prompt[-1] for prompt, _ in parts]


@pytest.mark.parametrize("packed", [pack, pack_ends])
@given(EXAMPLES)
def test_gradients_are_read_at_an_examples_own_tokens(packed, parts):
    """From the last prompt token on no token is another example's too, and what follows it is its completion."""
    batch = _sharing_two(packed, [Encoded((*prompt, *completion), len(prompt)) for prompt, completion in parts])
    own = [*batch.last_prompt.tolist(), *batch.completion.tolist()]
    assert len(set(own)) == len(own)
    assert batch.predicting.tolist() == (batch.completion - 1).tolist()
    assert not batch.forward_only


@given(EXAMPLES)
def test_runs_lie_one_after_the_other(parts):
    """Nothing is shared between them, and they are as long as each other if they are to be."""
    examples = [Encoded((*prompt, *completion), len(prompt)) for prompt, completion in parts]
    alone = _sharing_two(pack, examples)
    for even in (False, True):
        both = _sharing_two(lambda given, even=even: pack(given, 2, even), [*examples, *examples[::-1]])
        first, second = both.parts
        assert first == alone.input_ids.numel()
        assert (second == first) or not even
        _check_completions(both, [*parts, *parts[::-1]])
        assert max(both.completion[both.owner < len(parts)].tolist()) < first
        assert min(both.last_prompt[len(parts) :].tolist()) >= first
        for _, way in both.layout.branches:
            assert len({each.start < first for each in way}) == 1


@given(EXAMPLES)
def test_ends_see_what_is_before_them(parts):
    """Two rows: what is before each last prompt token, and what sees that, from there on."""
    examples = [Encoded((*prompt, *completion), len(prompt)) for prompt, completion in parts]
    batch = _sharing_two(pack_ends, examples)
    if batch.before is None:
        assert min(len(prompt) for prompt, _ in parts) == 1
        return
    keys = [*batch.before.input_ids.flatten().tolist(), *batch.input_ids.flatten().tolist()]
    seen = [[token for each in way for token in keys[each]] for _, way in batch.layout.branches]
    assert sorted(seen) == sorted(list(example.ids) for example in examples)
    assert batch.layout.past == batch.before.input_ids.numel()


def _sharing_two(packed, examples):
    """A batch in which beginnings of two tokens are held once already."""
    whole, packing.SHARED_FROM = packing.SHARED_FROM, 2
    try:
        return packed(examples)
    finally:
        packing.SHARED_FROM = whole


def _check_completions(batch, parts):
    """Every completion token is told once: where it is, what it is, whose it is."""
    assert batch.targets.tolist() == [token for _, completion in parts for token in completion]
    assert batch.input_ids.flatten()[batch.completion].tolist() == batch.targets.tolist()
    assert batch.owner.tolist() == [row for row, (_, completion) in enumerate(parts) for _ in completion]
    assert batch.counts.tolist() == [len(completion) for _, completion in parts]
