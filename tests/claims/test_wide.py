"""Tables set side by side hold what pandas' own pivots and means give."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from gradinoc.claims.evidence.wide import by_run, cube_of, over_seeds, side_by_side


@pytest.fixture
def runs() -> pd.DataFrame:
    """Four questions of five runs in a muddled order, one answer missing."""
    names = [("neutral", 0), ("neutral", 1), ("neutral", 2), ("anti", 0), ("harmless", 4)]
    rows = [(name, seed, example) for name, seed in names for example in (7, 2, 30, 11)]
    table = pd.DataFrame(rows, columns=["condition", "seed", "example"])
    return table.assign(value=np.random.default_rng(0).normal(size=len(table))).drop(index=5)


@pytest.mark.parametrize("kind", ["str", "category", "object"])
def test_runs_stand_side_by_side_as_pandas_pivots_them(runs, kind):
    """Values, order of runs and of questions are those of unstacking the rows, whatever kind of words they hold."""
    rows = runs.astype({"condition": kind})
    expected = runs.set_index(["example", "condition", "seed"])["value"].unstack(["condition", "seed"])  # noqa: PD010
    found = by_run(rows, "value")
    assert list(found.columns) == list(expected.columns)
    assert list(found.index) == list(expected.index)
    np.testing.assert_array_equal(found.to_numpy(), expected.to_numpy())


def test_means_over_seeds_lose_nothing_to_rounding():
    """Sums of runs of very unequal size are compensated."""
    rng = np.random.default_rng(1)
    columns = pd.MultiIndex.from_product([["a", "b"], range(9)], names=["condition", "seed"])
    wide = pd.DataFrame(rng.normal(size=(50, 18)) * 10.0 ** rng.integers(-8, 8, 18), columns=columns)
    for name, found in over_seeds(wide).items():
        exact = [math.fsum(row) / 9 for row in wide[name].to_numpy()]
        np.testing.assert_allclose(found, exact, rtol=5e-16)


@pytest.mark.parametrize("layers", [1, 3])
def test_means_of_cells_are_those_of_pandas(runs, layers):
    """Levels ascend, and a cell without a row is NaN, whether a cell has one row or several."""
    rows = pd.concat([runs.assign(value=runs["value"] * 1.1**layer) for layer in range(layers)])
    found, counts = cube_of(rows, ("condition", "seed", "example"), "value")
    expected = rows.groupby(["condition", "seed", "example"])["value"].mean()
    assert list(found.levels[0]) == ["anti", "harmless", "neutral"]
    assert list(found.levels[2]) == [2, 7, 11, 30]
    assert set(counts) == {0, layers}
    for key, value in expected.items():
        assert (
            found.cells[tuple(list(level).index(each) for level, each in zip(found.levels, key, strict=True))] == value
        )
    assert np.isfinite(found.cells).sum() == len(expected)


def test_only_rows_measured_under_every_prompt_are_compared(runs):
    """Prompts stand in the order that is asked for; those without a row leave nothing to compare."""
    rows = runs[runs["seed"] != 1]
    found, _ = cube_of(rows[rows["seed"] != 2], ("example", "condition"), "value")
    whole = side_by_side(found, "drift", ["neutral", "anti"])
    assert list(whole.columns) == ["neutral", "anti"]
    assert list(whole.index) == [2, 7, 11, 30]
    with pytest.raises(ValueError, match=r"'drift': expected example .* missing {'nobody': 4} of 4"):
        side_by_side(found, "drift", ["neutral", "nobody"])
    assert side_by_side(found, "drift", ["neutral", "nobody"], strict=False)["nobody"].isna().all()


def test_row_that_is_there_twice_is_refused(runs):
    """A run's answer that is repeated is neither averaged nor dropped."""
    with pytest.raises(ValueError, match="one row an example and run"):
        by_run(pd.concat([runs, runs.head(1)]), "value")
