"""Directions without the trait: what each kind of null is drawn from, and that one backward pass serves them all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fixtures.small_models import ARCHITECTURES, HIDDEN, LAYERS
from gradinoc.measure.directions.extraction import mean_difference
from gradinoc.measure.directions.nulls import covariance_directions, instruction_directions, isotropic_directions
from gradinoc.measure.gradients.alignment import measure_alignments
from gradinoc.pipeline.steps.base_model.gradients import _by_trait, _cells, _random, frozen_directions
from gradinoc.pipeline.storage.contents import load_tensors, save_tensors
from gradinoc.study.settings import NULLS, NullSettings

PAD, QUESTIONS = 0, 40
COUNTS = {null: 201 + place for place, null in enumerate(NULLS)}
SETTINGS = NullSettings(**COUNTS)


def sides(seed=0, questions=QUESTIONS, hidden=HIDDEN, layers=LAYERS, apart=1.0):
    """Activations of two sides that differ by `apart` along the first axis and vary most along the second."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.ones(hidden)
    spread[1] = 10.0

    def side(shift):
        rows = {layer: spread * torch.randn(questions, hidden, generator=generator) for layer in range(layers)}
        return {layer: states + shift * torch.eye(hidden)[0] for layer, states in rows.items()}

    return side(apart), side(-apart)


def test_covariance_directions_vary_as_the_residual_stream_does():
    """Their second moments, before they are scaled to length 1, are those of the centred activations."""
    promote, suppress = sides(questions=200, hidden=6, layers=1, apart=50.0)
    drawn = covariance_directions(promote, suppress, 20_000, 0)[0].double()
    within = torch.cat([side[0] - side[0].mean(0) for side in (promote, suppress)]).double()
    covariance = within.T @ within
    lengths = np.random.default_rng(0).multivariate_normal(np.zeros(6), covariance.numpy(), 20_000)
    expected = lengths / np.linalg.norm(lengths, axis=1, keepdims=True)
    assert torch.allclose(drawn.norm(dim=-1), torch.ones(20_000, dtype=torch.float64), atol=1e-6)
    np.testing.assert_allclose((drawn.T @ drawn / 20_000).numpy(), expected.T @ expected / 20_000, atol=0.02)


def test_draws_are_the_same_combination_at_every_layer():
    """Where all layers hold the same states, all draws are alike; another seed draws others."""
    promote, suppress = (dict.fromkeys(range(3), side[0]) for side in sides())
    rows = covariance_directions(promote, suppress, 20, 3)
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[0], rows[2])
    assert not torch.equal(rows[0], covariance_directions(promote, suppress, 20, 4)[0])


def test_instruction_contrasts_are_differences_of_two_prompts():
    """Each is the unit difference of two prompts, with either sign, no pair twice, the same pair at every layer."""
    means = torch.randn(LAYERS, 8, HIDDEN, generator=torch.Generator().manual_seed(0))
    found = instruction_directions(means, 28, 1)
    one, other = torch.combinations(torch.arange(8)).T
    contrasts = nn.functional.normalize(means[:, one] - means[:, other], dim=-1)
    cosines = found @ contrasts.mT  # (layers, draws, pairs)
    pair = cosines.abs().argmax(-1)
    assert torch.allclose(cosines.abs().amax(-1), torch.ones(LAYERS, 28), atol=1e-5)
    assert (pair == pair[0]).all()
    assert sorted(pair[0].tolist()) == list(range(28))
    signs = cosines.gather(-1, pair[..., None]).sign()
    assert set(signs.flatten().tolist()) == {-1.0, 1.0}
    assert (signs == signs[0]).all()


def test_more_instruction_contrasts_than_pairs_are_an_error():
    """Eight prompts have 28 pairs."""
    with pytest.raises(ValueError, match="8 prompts have 28 pairs"):
        instruction_directions(torch.randn(1, 8, HIDDEN), 29, 0)


@pytest.fixture
def folder(tmp_path):
    """What steps that find directions leave: the trait's by two ways, unrelated traits', states under prompts."""
    promote, suppress = sides()
    trait = torch.stack([mean_difference(promote[layer], suppress[layer]) for layer in range(LAYERS)])
    save_tensors({"trait": trait, "responses": trait.flip(0)}, tmp_path / "directions.safetensors")
    stacked = {name: torch.stack([*side.values()]) for name, side in (("promote", promote), ("suppress", suppress))}
    save_tensors(stacked, tmp_path / "contrasts.safetensors")
    save_tensors({"one": trait.flip(0), "two": -trait}, tmp_path / "unrelated.safetensors")
    means = torch.randn(LAYERS, 24, HIDDEN, generator=torch.Generator().manual_seed(5))
    save_tensors({"means": means}, tmp_path / "instructions.safetensors")
    return tmp_path


def test_rows_are_what_they_are_called(folder):
    """Ways of finding the trait's, unrelated traits, then each null: found again behind their names in the tables."""
    promote, suppress = sides()
    along = frozen_directions(folder, folder, SETTINGS)
    assert (along.ways, along.traits, along.draws) == (("trait", "responses"), ("one", "two"), COUNTS)
    trait = load_tensors(folder / "directions.safetensors")["trait"]
    means = load_tensors(folder / "instructions.safetensors")["means"]
    seed = SETTINGS.seed
    for layer, rows in along.rows.items():
        assert torch.equal(rows[0], trait[layer])
        assert torch.equal(rows[1], trait.flip(0)[layer])
        assert torch.equal(rows[3], -trait[layer])
        drawn = [
            isotropic_directions(COUNTS["isotropic"], HIDDEN, seed),
            covariance_directions(promote, suppress, COUNTS["covariance"], seed)[layer],
            instruction_directions(means, COUNTS["instruction"], seed)[layer],
        ]
        assert torch.equal(rows[4:], torch.cat(drawn))
    numbers = torch.arange(4 + sum(COUNTS.values()), dtype=torch.float64).expand(LAYERS, -1)  # each row's own number
    table, start = _random(numbers, along), 4
    first = table[table["layer"] == 1].groupby("null")["alignment"].agg(["min", "max", "count"])
    for null, count in COUNTS.items():
        assert first.loc[null].tolist() == [start, start + count - 1, count]
        start += count


@pytest.fixture
def llama():
    """A small Llama, frozen."""
    return ARCHITECTURES["llama"]().requires_grad_(False)


def test_one_backward_pass_serves_every_null(llama, examples, folder, monkeypatch):
    """As many passes as batches, whatever the directions; what is kept by example is each row's own alignment."""
    along = frozen_directions(folder, folder, SETTINGS)
    passes, run = [], torch.autograd.backward
    monkeypatch.setattr(torch.autograd, "backward", lambda *a, **k: (passes.append(1), run(*a, **k))[1])
    found = measure_alignments(llama, examples, along.rows, PAD, batch_size=1, kept=4)
    assert len(passes) == len(examples)
    table = _by_trait(found, along)
    primary = found.table[found.table["position"] == "last_prompt_token"].set_index(["layer", "example"])["alignment"]
    two = table[table["trait"] == "two"].set_index(["layer", "example"])["alignment"]
    np.testing.assert_allclose(two.sort_index(), -primary.sort_index(), atol=1e-6)  # its direction is the opposite
    alone = measure_alignments(llama, examples, {k: rows[2:3] for k, rows in along.rows.items()}, PAD)
    alone = alone.table[alone.table["position"] == "last_prompt_token"].set_index(["layer", "example"])["alignment"]
    one = table[table["trait"] == "one"].set_index(["layer", "example"])["alignment"]
    np.testing.assert_allclose(one.sort_index(), alone.sort_index(), atol=1e-6)


def test_cells_are_means_over_thirds_of_layers(llama, examples, folder):
    """Of the trait's cosine at each position, from the table by example; push from its projections."""
    along = frozen_directions(folder, folder, SETTINGS)
    found = measure_alignments(llama, examples, along.rows, PAD, batch_size=2, kept=4)
    cells = _cells(found, along).set_index(["direction", "measure", "position", "third"])["value"]
    thirds = np.array_split(np.arange(LAYERS), 3)
    for third, layers in enumerate(thirds):
        rows = found.table[found.table["layer"].isin(layers)]
        for position, own in rows.groupby("position"):
            assert cells["trait", "alignment", position, third] == pytest.approx(own["alignment"].mean(), abs=1e-6)
            assert cells["trait", "push", position, third] == pytest.approx(own["projection"].mean(), abs=1e-6)
