"""How long several workers take: dealt out by hand, within Graham's bounds, and for a study and larger ones."""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradinoc.models.sources.locate import described
from gradinoc.pipeline import estimate as module
from gradinoc.pipeline.estimate import STARTING, estimate
from gradinoc.pipeline.estimate.workers import Timed, makespan, with_runs
from gradinoc.pipeline.steps.step import StepKey
from gradinoc.study.loading import load_study

SMALL = [
    "seeds=[0]", "prompts.trained=[]", "prompts.measured=trained", "prompts.examples=8",
    "data.train=8", "data.measure=8", "drift.generations=8", "drift.log_odds=8",
]  # fmt: skip


def of(*steps):
    """Steps `(seconds, *places of those it needs)` in the order of a plan."""
    keys = [StepKey("training", f"c{place}") for place in range(len(steps))]
    return {
        key: Timed(tuple(keys[need] for need in needs), seconds)
        for key, (seconds, *needs) in zip(keys, steps, strict=True)
    }


@pytest.mark.parametrize(
    ("steps", "workers", "expected"),
    [
        (of((2.0,), (3.0,), (4.0,)), 1, 9.0),
        (of((2.0,), (3.0,), (4.0,)), 2, 6.0),  # 2, then 4, beside 3
        (of((2.0,), (3.0,), (4.0,)), None, 4.0),
        (of((1.0,), (5.0, 0), (2.0, 0), (1.0, 1, 2)), 2, 7.0),
        (of((1.0,), (2.0, 0, 0)), 3, 3.0),  # a need named twice is one
        ({}, 4, 0.0),
    ],
)
def test_dealt_out_by_hand(steps, workers, expected):
    """A free worker takes the first of the plan that is ready."""
    assert makespan(steps, workers) == expected


@given(st.lists(st.tuples(st.floats(0.1, 10), st.sets(st.integers(0, 20))), min_size=1, max_size=20), st.integers(1, 8))
def test_within_grahams_bounds(drawn, workers):
    """Not below the mean load or the longest path, nor above their sum (Graham 1969), whatever needs what."""
    steps = of(*((seconds, *(need for need in needs if need < place)) for place, (seconds, needs) in enumerate(drawn)))
    path: dict[StepKey, float] = {}
    for key, step in steps.items():
        path[key] = step.seconds + max((path[need] for need in step.needs), default=0.0)
    longest, load = max(path.values()), sum(step.seconds for step in steps.values()) / workers
    found = makespan(steps, workers)
    assert max(longest, load) <= found * (1 + 1e-9)
    assert found <= (load + longest) * (1 + 1e-9)
    assert makespan(steps) == pytest.approx(longest)


@pytest.mark.parametrize("runs", [100, 1_000])
def test_larger_studies_have_as_many_runs(runs):
    """By seeds of the conditions: as many, or a few more, and not those of arms."""
    for name in ("tiny", "causal-tiny"):
        study = with_runs(load_study(name), runs)
        assert runs <= len(study.runs) < runs + len(study.conditions)
        assert not study.arm_runs


@pytest.fixture
def second_each(monkeypatch):
    """Every kind of work takes a second."""
    monkeypatch.setattr(module.Stopwatch, "seconds", lambda *_: 1.0)


@pytest.mark.usefixtures("second_each")
def test_table_of_an_engine(monkeypatch):
    """One worker takes the sum of all steps; more take less, and none less than the longest chain."""
    monkeypatch.setattr(module, "RUNS", (30, 100))
    study = load_study("tiny", SMALL)
    found = estimate(study, (1, 4))
    table = found.on_workers
    assert table["runs"].to_list() == [3, 30, 102]
    assert table["runs"][0] == len(study.runs)
    assert table["workers 1"][0] == pytest.approx(STARTING + found.stages["seconds"].sum())
    assert (table["workers 1"] > table["workers 4"]).all()
    assert (table["workers 4"] >= table["shortest"]).all()


@pytest.mark.usefixtures("second_each")
def test_seventy_billion_weights_are_counted_without_one(tmp_path, monkeypatch):
    """A description is enough; memory is that of the shapes: 140 GB of weights in bfloat16, and what a step holds."""
    folder, _ = described("obedient", None)
    shutil.copytree(folder, tmp_path / "large", ignore=shutil.ignore_patterns("*.safetensors"))
    file = tmp_path / "large" / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config |= {
        "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256, "tie_word_embeddings": False,
        "layer_types": ["full_attention"] * 80, "max_window_layers": 80,
    }  # fmt: skip
    file.write_text(json.dumps(config), encoding="utf-8")
    found = estimate(
        load_study("tiny", [f"model.id={tmp_path / 'large'}", "model.dtype=bfloat16", "model.kernels=plain", *SMALL])
    )
    assert found.on_workers.empty
    assert 70e9 < found.weights < 71e9
    assert found.memory["weights"] == pytest.approx(2 * found.weights, rel=0.01)
    assert found.needed > found.memory["weights while directions are found"] > 280e9
