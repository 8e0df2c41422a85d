"""What steering refuses, before anything is hooked."""

from __future__ import annotations

import pytest
import torch

from fixtures.small_models import HIDDEN, LAYERS, PAD, letter_tokenizer
from fixtures.steered import CLOSE, frozen, logits_by_hand, trace
from gradinoc import steered
from gradinoc.measure.fast import batched, completion_losses
from gradinoc.measure.fast.packed.forward import is_fused
from gradinoc.measure.gradients.alignment import answer_losses
from gradinoc.models.blocks import decoder_of
from gradinoc.models.generate import generate


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"directions": {LAYERS: torch.ones(HIDDEN)}}, "expected one or more of 0..2"),
        ({"directions": {}}, "expected one or more of 0..2"),
        ({"directions": {0: torch.full((HIDDEN,), torch.nan)}}, "some that are not finite"),
        ({"directions": {0: torch.ones(1, 2, HIDDEN)}}, r"expected finite numbers \[hidden\]"),
        ({"strength": float("inf")}, "expected a finite number"),
        ({"strength": torch.ones(2, 2)}, "one for each row"),
        ({"positions": "first"}, "Positions 'first': expected 'last_prompt_token', 'all'"),
        ({"positions": [-1]}, "an index from 0 on"),
        ({"positions": [0.5]}, "an index from 0 on"),
        ({"positions": [1, 2], "strength": torch.ones(3)}, "expected one number of rows"),
        ({"directions": {0: torch.ones(2, HIDDEN), 1: torch.ones(3, HIDDEN)}}, "expected one number of rows"),
    ],
    ids=str,
)
def test_faults_are_named_before_anything_is_hooked(fault, words):
    """Layers, shapes, numbers."""
    model = frozen("llama")
    before = trace(model)
    given = {"directions": {0: torch.ones(HIDDEN)}, **fault}
    with pytest.raises(ValueError, match=words), steered(model, **given):
        pass
    assert trace(model) == before


def test_passes_that_do_not_fit_are_refused(alike, vector):
    """Other numbers of rows or hidden units; rows that a function would sort; tokens that rows share."""
    plain, fused = frozen("llama"), frozen("llama", "fused")
    ids = torch.tensor([[5, 6, 7], [5, 6, 8]])
    with steered(plain, {0: torch.ones(3, HIDDEN)}), pytest.raises(ValueError, match="for 3 rows: the pass has 2"):
        plain(ids)
    with steered(plain, {0: torch.ones(HIDDEN + 1)}), pytest.raises(ValueError, match=f"expected {HIDDEN} numbers"):
        plain(ids)
    by_row = {0: torch.ones(len(alike), HIDDEN)}
    for model in (plain, fused):
        with steered(model, by_row):
            with pytest.raises(ValueError, match="steered row by row"):
                answer_losses(model, alike, PAD, 8)
            with pytest.raises(ValueError, match="steered row by row"):
                generate(model, letter_tokenizer(), [[5, 6]], 2, 1)
    packed = batched(fused, alike, PAD)
    assert is_fused(fused)
    with steered(fused, vector, 1.0, [0] * len(alike)), pytest.raises(NotImplementedError, match="rows share these"):
        completion_losses(fused, packed)
    with (
        steered(fused, by_row, 1.0, "all"),
        pytest.raises(NotImplementedError, match="a vector for each of the 1 runs"),
    ):
        completion_losses(fused, packed)


def test_masks_that_hide_where_tokens_are_are_refused(vector):
    """Of four dimensions: a token's place in its row cannot be read off it."""
    model, mask = frozen("llama"), torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    with steered(model, vector), pytest.raises(NotImplementedError, match=r"attention mask \[rows, tokens\]"):
        model(torch.tensor([[5, 6, 7]]), attention_mask=mask)
    with steered(model, vector, positions="all"), torch.no_grad():
        found = model(torch.tensor([[5, 6, 7]]), attention_mask=mask).logits[0]
    torch.testing.assert_close(found, logits_by_hand(model, [5, 6, 7], vector, 0), **CLOSE)


def test_decoder_is_where_tokens_come_in(either_model):
    """What is asked which tokens a pass has is given their ids or embeddings."""
    held = []
    handle = decoder_of(either_model).register_forward_pre_hook(lambda *call: held.append(call), with_kwargs=True)
    with torch.no_grad():
        either_model(torch.tensor([[5, 6, 7]]))
    handle.remove()
    assert len(held) == 1
