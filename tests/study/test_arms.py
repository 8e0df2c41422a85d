"""Arms of a study: which runs they are, and which are refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from gradinoc.study.arms import ITSELF, Arm, arm_runs
from gradinoc.study.description import Study
from gradinoc.study.loading import load_study

PROJECT = {"intervention": "project"}


def named(**arms):
    """(condition, strength, draw, seed) of every run of these arms, of a study with seeds 4, 5 and 6."""
    return [
        (run.condition, run.strength, run.draw, run.seed)
        for run in arm_runs({name: Arm(**arm) for name, arm in arms.items()}, (4, 5, 6))
    ]


def test_an_arm_has_a_run_for_each_of_its_first_seeds():
    """Of one strength it is called by its own name."""
    assert named(removed=PROJECT | {"seeds": 2}) == [("removed", 1.0, ITSELF, 4), ("removed", 1.0, ITSELF, 5)]


def test_strengths_have_names_of_their_own():
    """Each has every seed of the arm."""
    found = named(dose=PROJECT | {"strengths": [-1.0, 0.5]})
    assert found == [("dose -1", -1.0, ITSELF, 4), ("dose 0.5", 0.5, ITSELF, 4)]


def test_drawn_directions_take_the_seeds_in_turn():
    """Four draws of three seeds: the fourth has the first seed again."""
    found = named(matched=PROJECT | {"draws": 4})
    assert [(draw, seed) for _, _, draw, seed in found] == [(0, 4), (1, 5), (2, 6), (3, 4)]
    assert [name for name, *_ in found] == ["matched 0", "matched 1", "matched 2", "matched 3"]


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        ({"prompt": "nobody"}, "arms.removed.prompt: expected a condition"),
        ({"seeds": 4}, "arms.removed.seeds: more than the study has"),
        ({"intervention": "restore"}, "restored already"),
        ({"intervention": "shrink", "strengths": [0.5]}, "'shrink' has no strength"),
        ({"strengths": [1.0, 1.0]}, "different numbers"),
        ({"strengths": [0.0]}, "other than 0"),
        ({"strengths": []}, "at least 1"),
        ({"intervention": "rotate"}, "'project'"),
    ],
)
def test_an_arm_that_does_not_fit_is_refused(arm, words):
    """The message names the arm and the field."""
    with pytest.raises(ValidationError, match=words):
        Study(name="s", arms={"removed": PROJECT | arm})


@pytest.mark.parametrize(
    "other", [{"strengths": [1.0, 2.0]}, {"draws": 4}], ids=["the same strength", "the same draws"]
)
def test_two_arms_with_the_same_runs_are_refused(other):
    """One of the two would count in place of the other, and a direction that is drawn twice."""
    first = PROJECT | ({"draws": 2} if "draws" in other else {})
    with pytest.raises(ValidationError, match=r"arms.again: at strength 1 its runs are those of arms.removed"):
        Study(name="s", arms={"removed": first, "again": PROJECT | other})
    Study(name="s", arms={"removed": first, "again": PROJECT | other | {"direction": "learned"}})


def test_an_arm_is_no_condition():
    """Tables tell runs apart by name."""
    with pytest.raises(ValidationError, match="a name that is taken"):
        Study(name="s", arms={"neutral": PROJECT})


def test_runs_of_arms_come_after_the_others_and_are_none_of_them():
    """The ready study: 15 runs of conditions, and its arms'."""
    study = load_study("causal-smollm2")
    assert len(study.runs) == 15
    assert not {name for name, _ in study.arm_runs} & {name for name, _ in study.runs}
    assert load_study("smollm2").arm_runs == {}
