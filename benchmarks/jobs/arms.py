"""A training step with an intervention, of each kind, against the logged step without."""

from __future__ import annotations

from typing import get_args

from benchmarks.inputs import Setting
from benchmarks.jobs.training import BATCH, CHECKED_STEPS, side
from benchmarks.outcome import Comparison, Outcome, Value
from benchmarks.workers import HERE, Side, Worker, take_turns, workers
from gradinoc.measure.training.interventions import Kind

REPETITIONS = 8
GOALS = dict.fromkeys(get_args(Kind), 1.05) | {"restore": 2.1}  # a second pass has the components of the other prompt
LEFT = 1e-4  # cosine with the direction that a projected gradient may have in float32
DIRECTIONS = 101


def run(setting: Setting, outcome: Outcome) -> None:
    """Check that a projected gradient has nothing along the direction, then time steps over the same batches."""
    work = setting.training_work("short.json", shortest=BATCH * CHECKED_STEPS)
    with Worker(_side("project"), setting.scratch) as worker:
        worker.ask("prepare", dtype="float32", batch_size=BATCH, steps=CHECKED_STEPS, work=work)
        outcome.check("ours_project", "cosine of what is left with the direction", worker.ask("alignment"), LEFT)
    setting.log(f"  {outcome.checks[-1]}")
    count, work = setting.times(REPETITIONS), setting.training_work("training.json")
    with workers([side("ours", "ours"), *map(_side, GOALS)], setting.scratch) as running:
        for worker in running.values():
            worker.ask("prepare", dtype="auto", batch_size=BATCH, steps=count + 3, directions=DIRECTIONS, work=work)
        outcome.samples += take_turns(running, count, on_sample=setting.log_sample)
        outcome.figures += [Value(name, "peak memory", worker.ask("memory")) for name, worker in running.items()]
    for kind, goal in GOALS.items():
        outcome.comparisons += [
            Comparison(f"ours_{kind}", "ours", goal),
            Comparison(f"ours_{kind}", "ours", value="peak memory"),
        ]


def _side(kind: str) -> Side:
    return Side(f"ours_{kind}", HERE / "sides" / "training_arm.py", options=(kind,))
