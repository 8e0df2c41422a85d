"""The gradient's energy along directions, and directions that hold as much: brute force and planted moments."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fixtures.oracles import answer_loss, autograd_gradient
from fixtures.small_models import HIDDEN, PAD
from gradinoc.errors import ModelError
from gradinoc.measure.directions.energy import SUBSPACE, WITHIN, energy, gradient_moments, match_energy


def unit(*shape, seed=0):
    """Random unit rows."""
    return nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_moments_are_those_of_every_token_of_every_example(llama, examples):
    """Autograd, one example at a time, prompt tokens counting as those of the answer do."""
    found = gradient_moments(llama, examples, [1, 2], PAD, batch_size=3)
    for layer in (1, 2):
        rows = [autograd_gradient(llama, layer, lambda e=each: answer_loss(llama, e))[0].double() for each in examples]
        expected = sum(each.T @ each for each in rows)
        torch.testing.assert_close(found[layer], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_energies_over_an_orthonormal_basis_add_up_to_one(llama, examples):
    """And a plane holds what its two rows hold."""
    moments = gradient_moments(llama, examples, [1, 2], PAD)
    basis = torch.linalg.qr(torch.randn(HIDDEN, HIDDEN, dtype=torch.float64)).Q.T
    singles = energy(moments, dict.fromkeys(moments, basis[:, None]))
    assert float(singles.sum()) == pytest.approx(1, rel=1e-9)
    plane = energy(moments, dict.fromkeys(moments, basis[None, :2]))
    assert float(plane) == pytest.approx(float(singles[:2].sum()))


def planted(values):
    """Moments that are diagonal: the energy of axis i is values[i]."""
    return {0: torch.diag(torch.tensor(values, dtype=torch.float64))}


def test_matched_directions_hold_as_much_within_a_fifth():
    """Of both kinds in turn, and none that holds more or less."""
    moments = {0: torch.diag(torch.linspace(0.5, 1.5, 40, dtype=torch.float64))}
    kinds = {"one": {0: unit(200, 40, seed=1)}, "two": {0: unit(200, 40, seed=2)}}
    found = match_energy(moments, {0: unit(40, seed=3)}, kinds, 20, seed=0)
    assert found.rank == 1
    assert [found.kinds.count(kind) for kind in kinds] == [10, 10]
    assert all(abs(each - found.target) <= WITHIN * found.target for each in found.energies)
    again = energy(moments, found.bases)
    assert again.tolist() == pytest.approx(found.energies, rel=1e-5)
    assert not torch.equal(found.bases[0], match_energy(moments, {0: unit(40, seed=3)}, kinds, 20, seed=1).bases[0])


def test_where_no_direction_holds_as_much_a_subspace_does():
    """The target is the axis with a quarter of the energy, candidates lie elsewhere: several are taken together."""
    moments = planted([10.0, *[1.0] * 30])
    rows = torch.zeros(60, 31)
    rows[:, 1:] = unit(60, 30, seed=4)
    target = torch.zeros(31)
    target[0] = 1.0
    found = match_energy(moments, {0: target}, {"kind": {0: rows}}, 5, seed=0)
    assert set(found.kinds) == {SUBSPACE}
    assert found.rank == pytest.approx(0.25 * 40 / 1, abs=3)
    eye = torch.eye(found.rank).expand(5, -1, -1)
    torch.testing.assert_close(found.bases[0] @ found.bases[0].mT, eye, rtol=0, atol=1e-5)
    assert all(abs(each - found.target) <= WITHIN * found.target for each in found.energies)


def test_what_nothing_matches_is_refused():
    """The target holds nearly everything."""
    target = torch.zeros(31)
    target[0] = 1.0
    rows = torch.zeros(60, 31)
    rows[:, 1:] = unit(60, 30, seed=4)
    with pytest.raises(ModelError, match=r"No 5 directions or subspaces"):
        match_energy(planted([1000.0, *[1.0] * 30]), {0: target}, {"kind": {0: rows}}, 5, seed=0)
