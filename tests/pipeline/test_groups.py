"""Finished runs are measured in groups of one seed; what shares a group changes nothing."""

from __future__ import annotations

import pandas as pd
import pytest

from fixtures.smallest import smallest
from gradinoc.data.splits import split
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.steps.finished_runs import runs
from gradinoc.study.loading import load_study

STAGES = ("drift", "checkpoints", "matrix")


@pytest.mark.parametrize("name", ["smollm2", "smollm2-full", "tiny"])
def test_every_run_is_in_one_group(name):
    """In the study's order, of one seed each; no group is larger than it may be, or than another by more than one."""
    study = load_study(name)
    found = list(runs.groups(StudyContext(study, split(study.data))))
    assert [(key.condition, key.seed) for group in found for key in group.runs] == study.runs
    for seed in study.seeds:
        own = [group for group in found if group.runs[0].seed == seed]
        assert all(key.seed == seed for group in own for key in group.runs)
        sizes = [len(group.runs) for group in own]
        assert len(own) == -(-sum(sizes) // runs.TOGETHER)
        assert max(sizes) - min(sizes) <= 1, sizes
    assert len({group.label for group in found}) == len({group.runs[0] for group in found}) == len(found)


def test_what_shares_a_group_changes_no_table(tmp_path, monkeypatch):
    """Five runs together, and two at a time: the same numbers, but for float32's rounding, and the same responses."""
    together = smallest(tmp_path)
    first = together.evidence(*STAGES)
    monkeypatch.setattr(runs, "TOGETHER", 2)
    apart = smallest(tmp_path)
    steps = [key for key in apart.steps if key.stage in STAGES and key.seed is not None]
    assert len(steps) == 9, "three groups in each of three stages"
    assert not any(apart.entries[key].complete() for key in steps)
    second = apart.evidence(*STAGES)
    for name in (*STAGES, "responses"):
        one, other = (_in_order(evidence.tables[name]) for evidence in (first, second))
        assert len(one) > 0
        pd.testing.assert_frame_equal(one, other, rtol=1e-4, atol=1e-5)


def _in_order(table):
    """Rows by all that is no number, then by example: a table has the groups one after the other."""
    keys = [column for column in table if table[column].dtype != "float64"]
    return table.sort_values(keys, ignore_index=True)
