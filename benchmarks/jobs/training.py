"""A logged training step against a plain one, an unlogged one, one with 1,001 directions, and the bare products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from benchmarks.inputs import Setting
from benchmarks.outcome import Comparison, Outcome, Value
from benchmarks.workers import HERE, Side, Worker, take_turns, workers
from gradinoc.models.machine.device import bfloat16_pays

# Option -> the script that knows it
SCRIPTS = {"ours": "ours", "unlogged": "ours", "plain": "plain", "autocast": "plain", "floor": "floor"}
BATCH, REPETITIONS, CHECKED_STEPS = 4, 8, 20
EQUAL = 1e-3  # relative, between losses of the same step
# Name -> (option, directions)
SIDES = {
    "plain": ("plain", 1), "plain_float32": ("plain", 1), "plain_autocast": ("autocast", 1), "ours": ("ours", 101),
    "ours_unlogged": ("unlogged", 1), "ours_1000": ("ours", 1001), "floor": ("floor", 1),
}  # fmt: skip
PLAIN = ("plain", "plain_float32", "plain_autocast")
# Of random weights: what a step costs does not depend on them. Its costliest product is of these sizes.
LARGER, LARGER_REPETITIONS = "qwen2.5-coder-0.5b", 5
PRODUCTS = {"": (576, 1536), LARGER: (896, 4864)}  # the costliest of each model, by which "auto" chooses a dtype
LARGER_SIDES = ("plain", "plain_float32", "ours")  # autocast as well would take 24 GB in all: plain float32 holds 9


def side(name: str, option: str) -> Side:
    """The side called `name` that trains as `option` says, of those of `SCRIPTS`."""
    return Side(name, HERE / "sides" / f"training_{SCRIPTS[option]}.py", options=(option,))


def run(setting: Setting, outcome: Outcome) -> None:
    """Check that both Trainers walk down the same losses, then time steps over the same batches, side by side."""
    check_losses(setting, outcome)
    work = setting.training_work("training.json")
    _time(setting, outcome, "", tuple(SIDES), {"work": work}, setting.times(REPETITIONS))
    larger = {"work": work, "shape": LARGER}
    _time(setting, outcome, LARGER, LARGER_SIDES, larger, setting.times(LARGER_REPETITIONS))
    outcome.comparisons += [
        Comparison("ours", "ours_unlogged", 1.03),
        Comparison("ours_1000", "ours_unlogged", 1.08),
        Comparison("ours", "floor", 2.2),
    ]


def _time(
    setting: Setting, outcome: Outcome, name: str, names: tuple[str, ...], work: dict[str, str], count: int
) -> None:
    """Steps of the sides `names` on `work`, and their peak memory; ours is held to the fastest plain run."""
    own = "bfloat16" if bfloat16_pays(*PRODUCTS[name]) else "float32"  # as "auto" chooses
    with workers([side(each, SIDES[each][0]) for each in names], setting.scratch) as running:
        for each, worker in running.items():
            dtype = "float32" if each == "plain_float32" else "bfloat16" if each in PLAIN else own
            worker.ask("prepare", dtype=dtype, batch_size=BATCH, steps=count + 3, directions=SIDES[each][1], **work)
        outcome.samples += take_turns(running, count, name, on_sample=setting.log_sample)
        memory = f"{name} memory".strip()
        outcome.figures += [Value(each, "peak memory", running[each].ask("memory"), memory) for each in names]
    plain = [each for each in names if each in PLAIN]
    best = faster(outcome, name, *plain)
    for each in plain:
        note = f"ours in {own}" + (f"; the fastest of {len(plain)} plain runs" if each == best else "")
        outcome.comparisons.append(Comparison("ours", each, 0.5 if each == best else None, name, note=note))
    outcome.comparisons.append(Comparison("ours", best, 1.0, memory, "peak memory"))


def faster(outcome: Outcome, setting: str, *names: str) -> str:
    """The side with the least median in a setting."""
    frame = pd.DataFrame([vars(sample) for sample in outcome.samples if sample.setting == setting])
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
