"""Cosine, projection and norm: what holds of them for any gradient and any direction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gradinoc.measure.gradients.alignment import compute_gradient_alignment

SOME = settings(max_examples=50, deadline=None)
ELEMENT = st.integers(-1000, 1000).map(lambda value: value / 100)


def vectors(*leading):
    """Arrays `[*leading, 6]` of numbers with two decimals: no underflow to hide behind."""
    return arrays.arrays(np.float64, (*leading, 6), elements=ELEMENT)


VECTOR = vectors().filter(lambda vector: np.linalg.norm(vector) > 0)


def aligned(gradient, direction):
    """The three figures of two arrays, as float64 arrays."""
    found = compute_gradient_alignment(torch.tensor(gradient), torch.tensor(direction))
    return {name: value.double().numpy() for name, value in found.items()}


@SOME
@given(VECTOR, VECTOR)
def test_figures_are_those_of_the_textbook(gradient, direction):
    """Cosine g·v / |g||v|, projection g·v / |v|, norm |g|, in float64."""
    found, length, size = aligned(gradient, direction), np.linalg.norm(gradient), np.linalg.norm(direction)
    assert found["cosine"] == pytest.approx(gradient @ direction / (length * size), abs=1e-6)
    assert found["projection"] == pytest.approx(gradient @ direction / size, abs=1e-6 * length)
    assert found["grad_norm"] == pytest.approx(length, rel=1e-6)


@SOME
@given(vectors(3, 1, 2), vectors(4, 1))
def test_leading_dimensions_broadcast(gradients, directions):
    """Every gradient meets every direction, as in a loop over both, and shapes are NumPy's."""
    assume(np.linalg.norm(directions, axis=-1).min() > 0)
    found = aligned(gradients, directions)
    for name, values in found.items():
        assert values.shape == (3, 4, 2), name
        for first, second, third in np.ndindex(values.shape):
            alone = aligned(gradients[first, 0, third], directions[second, 0])[name]
            assert values[first, second, third] == pytest.approx(float(alone), rel=1e-5, abs=1e-5, nan_ok=True)


@SOME
@given(VECTOR)
def test_zero_gradient_has_no_cosine(direction):
    """Missing is NaN and never 0; its norm and projection are 0."""
    found = aligned(np.zeros(6), direction)
    assert np.isnan(found["cosine"])
    assert found["projection"] == 0
    assert found["grad_norm"] == 0


@pytest.mark.parametrize("direction", [[0.0, 0.0], [float("nan"), 1.0], [[1.0, 0.0], [0.0, 0.0]]])
def test_direction_without_length_is_refused(direction):
    """One among many is enough."""
    with pytest.raises(ValueError, match="A direction is zero or NaN"):
        aligned([1.0, 2.0], direction)


def test_different_hidden_sizes_are_refused():
    """Also where NumPy would broadcast them; the message has both shapes."""
    for size in (1, 3):
        with pytest.raises(ValueError, match=rf"gradient \(4, 2\) and direction \({size},\)"):
            compute_gradient_alignment(torch.ones(4, 2), torch.ones(size))


def test_half_precision_is_raised_before_it_is_summed():
    """4,096 ones in bfloat16 have the norm 64, exactly: sums are made in float32."""
    ones = torch.ones(4096, dtype=torch.bfloat16)
    found = compute_gradient_alignment(ones, ones)
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert [float(value) for value in found.values()] == [1.0, 64.0, 64.0]
