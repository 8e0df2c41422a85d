"""Directions without the trait: what each kind of null is drawn from, and that one backward pass serves them all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from fixtures.held import HELD
from fixtures.small_models import ARCHITECTURES, HIDDEN, LAYERS
from gradinoc.claims.c2 import C2, unrelated_tail
from gradinoc.claims.c2 import UNRELATED as UNRELATED_TRAITS
from gradinoc.measure.alignment import measure_alignments
from gradinoc.measure.directions import (
    NULLS_DRAWN,
    covariance_directions,
    isotropic_directions,
    mean_difference,
    sign_flipped_directions,
)
from gradinoc.pipeline.steps.gradients import _by_trait, _random, frozen_directions
from gradinoc.pipeline.store import save_tensors
from gradinoc.power.simulate import simulate
from gradinoc.study.description import NULLS, NullSettings
from gradinoc.study.rules import Rules

PAD, QUESTIONS = 0, 40
COUNTS = {null: 101 + place for place, null in enumerate(NULLS)}
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
    for draw in (covariance_directions, sign_flipped_directions):
        rows = draw(promote, suppress, 20, 3)
        assert torch.equal(rows[0], rows[1])
        assert torch.equal(rows[0], rows[2])
        assert not torch.equal(rows[0], draw(promote, suppress, 20, 4)[0])


def test_sign_flipped_directions_equal_a_loop_over_questions():
    """Each question's contrast, with its own sign, summed by hand; the same signs at every layer."""
    promote, suppress = sides()
    rows = sign_flipped_directions(promote, suppress, 5, 7)
    signs = torch.randint(0, 2, (5, QUESTIONS), generator=torch.Generator().manual_seed(7)) * 2 - 1
    assert set(signs.unique().tolist()) == {-1, 1}
    for layer, found in rows.items():
        plain = sum(promote[layer][i] - suppress[layer][i] for i in range(QUESTIONS)) / QUESTIONS
        for draw in range(5):
            total = torch.zeros(HIDDEN)
            for question in range(QUESTIONS):
                total += signs[draw, question] * (promote[layer][question] - suppress[layer][question])
            torch.testing.assert_close(found[draw], total / QUESTIONS / plain.norm())


def test_rows_of_the_probe_are_what_they_are_called(tmp_path):
    """Trait, unrelated traits, then each null: found again behind their names in the tables that a step writes."""
    promote, suppress = sides()
    trait = torch.stack([mean_difference(promote[layer], suppress[layer]) for layer in range(LAYERS)])
    others = {name: nn.functional.normalize(torch.randn(LAYERS, HIDDEN), dim=-1) for name in ("one", "two")}
    save_tensors({"trait": trait}, tmp_path / "directions.safetensors")
    stacked = {name: torch.stack([*side.values()]) for name, side in (("promote", promote), ("suppress", suppress))}
    save_tensors(stacked, tmp_path / "contrasts.safetensors")
    save_tensors(others, tmp_path / "unrelated.safetensors")
    along = frozen_directions(tmp_path, tmp_path, SETTINGS)
    assert (along.traits, along.draws) == (("one", "two"), COUNTS)
    drawn = {null: NULLS_DRAWN[null](promote, suppress, count, SETTINGS.seed) for null, count in COUNTS.items()}
    assert torch.equal(drawn["isotropic"][0], isotropic_directions(COUNTS["isotropic"], HIDDEN, SETTINGS.seed))
    for layer, rows in along.rows.items():
        own = sign_flipped_directions(promote, suppress, COUNTS["sign_flipped"], SETTINGS.seed)[layer]
        assert torch.equal(drawn["sign_flipped"][layer], own)
        assert torch.equal(rows[0], trait[layer])
        assert torch.equal(rows[2], others["two"][layer])
        assert torch.equal(rows[3:], torch.cat([each[layer] for each in drawn.values()]))
    means = torch.arange(3 + sum(COUNTS.values()), dtype=torch.float64).expand(LAYERS, -1)  # each row's own number
    table, start = _random(means, along), 3
    first = table[table["layer"] == 1].groupby("null")["alignment"].agg(["min", "max", "count"])
    for null, count in COUNTS.items():
        assert first.loc[null].tolist() == [start, start + count - 1, count]
        start += count


@pytest.fixture
def llama():
    """A small Llama, frozen."""
    return ARCHITECTURES["llama"]().requires_grad_(False)


def test_one_backward_pass_serves_every_null(llama, examples, tmp_path, monkeypatch):
    """As many passes as batches, whatever the directions; what is kept by example is each row's own alignment."""
    promote, suppress = sides()
    trait = torch.stack([mean_difference(promote[layer], suppress[layer]) for layer in range(LAYERS)])
    save_tensors({"trait": trait}, tmp_path / "directions.safetensors")
    stacked = {name: torch.stack([*side.values()]) for name, side in (("promote", promote), ("suppress", suppress))}
    save_tensors(stacked, tmp_path / "contrasts.safetensors")
    save_tensors({"one": trait.flip(0), "two": -trait}, tmp_path / "unrelated.safetensors")
    along = frozen_directions(tmp_path, tmp_path, SETTINGS)
    passes, run = [], torch.autograd.backward
    monkeypatch.setattr(torch.autograd, "backward", lambda *a, **k: (passes.append(1), run(*a, **k))[1])
    found = measure_alignments(llama, examples, along.rows, PAD, batch_size=1, kept=3)
    assert len(passes) == len(examples)
    table = _by_trait(found, along)
    primary = found.table[found.table["position"] == "last_prompt_token"].set_index(["layer", "example"])["alignment"]
    two = table[table["trait"] == "two"].set_index(["layer", "example"])["alignment"]
    np.testing.assert_allclose(two.sort_index(), -primary.sort_index(), atol=1e-6)  # its direction is the opposite
    alone = measure_alignments(llama, examples, {k: rows[1:2] for k, rows in along.rows.items()}, PAD)
    alone = alone.table[alone.table["position"] == "last_prompt_token"].set_index(["layer", "example"])["alignment"]
    one = table[table["trait"] == "one"].set_index(["layer", "example"])["alignment"]
    np.testing.assert_allclose(one.sort_index(), alone.sort_index(), atol=1e-6)


def test_unrelated_tail_is_the_largest_of_paired_tests():
    """Against SciPy's paired t, trait by trait and sign by sign."""
    evidence = simulate("effect", np.random.default_rng(3), examples=20, directions=100)
    trait = evidence.alignments[evidence.alignments["layer"].isin(evidence.band)]
    trait = trait[trait["position"] == "last_prompt_token"]
    trait = trait.pivot_table(index="example", columns="condition", values="alignment")
    trait = trait["neutral"] - trait["inoculation"]
    rows = evidence.unrelated[evidence.unrelated["layer"].isin(evidence.band)]
    expected = []
    for _, group in rows.groupby("trait"):
        wide = group.pivot_table(index="example", columns="condition", values="alignment")
        other = wide["neutral"] - wide["inoculation"]
        expected += [stats.ttest_rel(trait, sign * other, alternative="greater").pvalue for sign in (1, -1)]
    found = unrelated_tail(evidence, "neutral")
    assert found.p == pytest.approx(max(expected), rel=1e-9)
    assert found.n == 20


def test_either_end_of_an_unrelated_contrast_counts():
    """A trait that shows the effect with the sign reversed is as good as one that shows it: C2 is not supported."""
    evidence = simulate("effect", np.random.default_rng(0), directions=200)
    assert C2.judge(evidence, Rules(), HELD).status == "supported"
    trait = evidence.alignments[evidence.alignments["position"] == "last_prompt_token"]
    trait = trait.set_index(["condition", "example", "layer"])["alignment"]
    for sign in (1, -1):
        unrelated = evidence.unrelated.copy()
        first = unrelated["trait"] == unrelated["trait"].iloc[0]
        places = list(zip(*(unrelated.loc[first, key] for key in ("condition", "example", "layer")), strict=True))
        unrelated.loc[first, "alignment"] = sign * trait.loc[places].to_numpy()
        finding = C2.judge(replace(evidence, unrelated=unrelated), Rules(), HELD)
        assert finding.status == "undecided", finding.statement
        assert UNRELATED_TRAITS in finding.reason


def test_missing_kind_of_null_is_an_error():
    """A null that was not measured cannot be passed."""
    evidence = simulate("effect", np.random.default_rng(0), directions=100)
    short = evidence.nulls[evidence.nulls["null"] != "covariance"]
    with pytest.raises(ValueError, match="expected the kinds"):
        C2.judge(replace(evidence, nulls=short), Rules(), HELD)
    with pytest.raises(ValueError, match="'unrelated'"):
        C2.judge(replace(evidence, unrelated=evidence.unrelated.iloc[:0]), Rules(), HELD)
