"""Tables set side by side hold what pandas' own pivots and means give, to the last bit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gradinoc.claims.wide import by_run, cube, over_seeds


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


def test_means_over_seeds_are_those_of_pandas_to_the_last_bit():
    """Sums of many runs of very unequal size are compensated in the same way."""
    rng = np.random.default_rng(1)
    columns = pd.MultiIndex.from_product([["a", "b"], range(9)], names=["condition", "seed"])
    wide = pd.DataFrame(rng.normal(size=(50, 18)) * 10.0 ** rng.integers(-8, 8, 18), columns=columns)
    expected = wide.T.groupby(level="condition").mean().T
    for name, found in over_seeds(wide).items():
        np.testing.assert_array_equal(found, expected[name].to_numpy())


def test_cube_puts_every_row_in_its_cell(runs):
    """Levels ascend, a value is where its keys say, and a cell without a row is NaN."""
    (names, seeds, examples), table = cube(runs, ("condition", "seed", "example"), "value")
    assert list(names) == ["anti", "harmless", "neutral"]
    assert list(examples) == [2, 7, 11, 30]
    for row in runs.itertuples():
        where = (list(names).index(row.condition), list(seeds).index(row.seed), list(examples).index(row.example))
        assert table[where] == row.value
    assert np.isfinite(table).sum() == len(runs)


def test_row_that_is_there_twice_is_refused(runs):
    """A measurement that is repeated is neither averaged nor dropped."""
    twice = pd.concat([runs, runs.head(1)])
    with pytest.raises(ValueError, match="one row a cell"):
        by_run(twice, "value")
    with pytest.raises(ValueError, match="one row a cell"):
        cube(twice, ("condition", "seed", "example"), "value")
