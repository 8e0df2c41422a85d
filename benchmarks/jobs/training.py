"""A logged training step against a plain one, an unlogged one, one with 1,001 directions, and the bare products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from benchmarks.inputs import Setting
from benchmarks.outcome import Comparison, Outcome, Value
from benchmarks.workers import HERE, Side, Worker, take_turns, workers

# Option -> the script that knows it
SCRIPTS = {"ours": "ours", "unlogged": "ours", "plain": "plain", "autocast": "plain", "floor": "floor"}
BATCH, REPETITIONS, CHECKED_STEPS = 4, 8, 20
EQUAL = 1e-3  # relative, between losses of the same step
# Name -> (option, directions)
SIDES = {
    "plain": ("plain", 1), "plain_autocast": ("autocast", 1), "ours": ("ours", 101), "ours_unlogged": ("unlogged", 1),
    "ours_1000": ("ours", 1001), "floor": ("floor", 1),
}  # fmt: skip


def side(name: str, option: str) -> Side:
    """The side called `name` that trains as `option` says, of those of `SCRIPTS`."""
    return Side(name, HERE / "sides" / f"training_{SCRIPTS[option]}.py", options=(option,))


def run(setting: Setting, outcome: Outcome) -> None:
    """Check that both Trainers walk down the same losses, then time steps over the same batches, side by side."""
    check_losses(setting, outcome)
    work = setting.training_work("training.json")
    count = setting.times(REPETITIONS)
    sides = [side(name, option) for name, (option, _) in SIDES.items()]
    arguments = {"dtype": "bfloat16", "batch_size": BATCH, "steps": count + 3, "work": work}
    with workers(sides, setting.scratch) as running:
        for name, worker in running.items():
            worker.ask("prepare", **arguments, directions=SIDES[name][1])
        outcome.samples += take_turns(running, count, on_sample=setting.log_sample)
        outcome.figures += [Value(name, "peak memory", running[name].ask("memory"), "memory") for name in SIDES]
    baseline = faster(outcome, "plain", "plain_autocast")
    slower = "plain" if baseline == "plain_autocast" else "plain_autocast"
    outcome.comparisons += [
        Comparison("ours", baseline, 0.5, note="the faster of two plain runs"),
        Comparison("ours", slower, None, note="the slower of two plain runs"),
        Comparison("ours", "ours_unlogged", 1.03),
        Comparison("ours_1000", "ours_unlogged", 1.08),
        Comparison("ours", "floor", 2.2),
        Comparison("ours", baseline, 1.0, "memory", "peak memory"),
    ]


def faster(outcome: Outcome, *names: str) -> str:
    """The side with the least median."""
    frame = pd.DataFrame([vars(sample) for sample in outcome.samples])
    medians = frame.groupby("side")["seconds"].median()
    return min(names, key=lambda name: float(medians[name]))


def check_losses(setting: Setting, outcome: Outcome) -> None:
    """Losses of plain and ours in float32 by step, in processes of their own: their memory is not what is measured."""
    work = setting.training_work("short.json", shortest=BATCH * CHECKED_STEPS)
    arguments: dict[str, Any] = {"dtype": "float32", "batch_size": BATCH, "steps": CHECKED_STEPS, "work": work}
    losses = {}
    for name in ("plain", "ours"):
        with Worker(side(f"{name}_float32", name), setting.scratch) as worker:
            worker.ask("prepare", **arguments)
            losses[name] = np.asarray(worker.ask("losses"))
    plain, ours = losses["plain"], losses["ours"]
    if len(plain) != CHECKED_STEPS or len(ours) != CHECKED_STEPS:
        raise ValueError(f"Expected {CHECKED_STEPS} losses, received {len(plain)} and {len(ours)}")
    away = float(np.abs(ours / plain - 1).max())
    outcome.check("ours", f"losses of {CHECKED_STEPS} steps against plain, relative", away, EQUAL)
    setting.log(f"  {outcome.checks[-1]}; {plain[0]:.4f} to {plain[-1]:.4f} nats/token")
