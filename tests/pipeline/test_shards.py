"""Shares of a study: each computed apart, what is measured together in one, and all of them the whole."""

from __future__ import annotations

from contextlib import closing
from itertools import chain

import pytest

from fixtures.smallest import SMALLEST
from gradinoc.pipeline.engines.shards import left_over, shard
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.storage.store import Store
from gradinoc.pipeline.storage.transfer import Became, differences, merge
from gradinoc.study.loading import load_study

TWO_SEEDS = [*SMALLEST, "seeds=[0, 1]", "model.threads=1"]


def planned(study, folder, *settings):
    """The steps of a study of which nothing is computed."""
    return Pipeline(load_study(study, list(settings)), Store(folder)).steps


@pytest.mark.parametrize("study", ["tiny", "smollm2", "causal-tiny"])
@pytest.mark.parametrize("count", [1, 2, 3, 16, 100])
def test_every_step_is_of_a_share_or_needs_several(tmp_path, study, count):
    """A share has all that it needs, no run is of two, and what is of none needs runs of more than one."""
    steps = planned(study, tmp_path)
    shares = [shard(steps, number, count) for number in range(1, count + 1)]
    for share in shares:
        assert [*chain.from_iterable(steps[key].needs for key in share)] == [
            need for key in share for need in steps[key].needs if need in share
        ]
    owners = {}
    for number, share in enumerate(shares):
        for key in share:
            if key.stage == "training":
                owners.setdefault(key, set()).add(number)
    if study != "causal-tiny":  # whose arms take neutral runs with them
        assert all(len(numbers) == 1 for numbers in owners.values())
    later = left_over(steps, count)
    assert {*chain.from_iterable(shares)} | {*later} == {*steps}
    if count == 1:
        assert later == []


def test_shares_are_alike_in_size(tmp_path):
    """No share has more than twice the runs of another, where there are as many groups of runs as shares."""
    steps = planned("smollm2", tmp_path)
    runs = [sum(key.stage == "training" for key in shard(steps, number, 3)) for number in (1, 2, 3)]
    assert max(runs) <= 2 * min(runs)


@pytest.mark.parametrize("number", [0, 4, -1])
def test_there_is_no_such_share(tmp_path, number):
    """Shares are counted from 1."""
    with pytest.raises(ValueError, match="expected 1 to 3"):
        shard(planned("tiny", tmp_path), number, 3)


def test_two_shares_merged_are_the_whole_study(tmp_path):
    """Bit for bit what one process computes; both computed what both need, to the same bytes."""
    study = load_study("tiny", TWO_SEEDS)
    for number in (1, 2):
        with closing(Pipeline(study, Store(tmp_path / str(number)))) as pipeline:
            pipeline.complete(shard(pipeline.steps, number, 2))
    arrivals = [*merge(Store(tmp_path / "1"), tmp_path / "2")]
    assert {each.became for each in arrivals} == {Became.TAKEN, Became.KNOWN}
    merged, whole = (Pipeline(study, Store(tmp_path / name)) for name in ("1", "whole"))
    for one, other in zip(merged.complete(), whole.complete(), strict=True):
        assert [*differences(one, other)] == []
