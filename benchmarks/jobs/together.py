"""Nine runs trained together, and one after another: on the CPU SmolLM2, on a CUDA device the shape of Qwen3-0.6B."""

from __future__ import annotations

import json

import numpy as np
import torch

from benchmarks.inputs import STYLE, Setting
from benchmarks.outcome import Comparison, Outcome, Value
from benchmarks.workers import HERE, Side, Worker, take_turns, workers

SCRIPT = HERE / "sides" / "together.py"
SIDES = ("together", "one_by_one")
RUNS, STEPS, REPETITIONS = 9, 3, 5
CHECKED_RUNS, EXAMPLES = 3, 40
EQUAL = 1e-5  # relative, between losses of the same step, in float32
CUDA_SHAPE = "qwen3-0.6b"
GOALS = {"cpu": 1.0, "cuda": 1 / 3}


def run(setting: Setting, outcome: Outcome) -> None:
    """Check losses in float32, then time whole runs of a few steps, their set-up among it."""
    work = _work(setting)
    losses = {}
    for name in SIDES:
        with Worker(_side(name, "_float32"), setting.scratch) as worker:
            worker.ask("prepare", dtype="float32", work=work, runs=CHECKED_RUNS, steps=STEPS)
            losses[name] = np.asarray(worker.ask("losses"))
    away = float(np.abs(losses["together"] / losses["one_by_one"] - 1).max())
    outcome.check("together", f"losses of {CHECKED_RUNS} runs against those of each alone, relative", away, EQUAL)
    setting.log(f"  {outcome.checks[-1]}")
    _time(setting, outcome, "cpu", {"work": work})
    if torch.cuda.is_available():
        _time(setting, outcome, "cuda", {"work": work, "shape": CUDA_SHAPE})
    else:
        outcome.missing["any CUDA device"] = "there is none on this machine"


def _time(setting: Setting, outcome: Outcome, name: str, arguments: dict[str, str]) -> None:
    with workers([_side(each) for each in SIDES], setting.scratch) as running:
        for worker in running.values():
            worker.ask("prepare", dtype="bfloat16", runs=RUNS, steps=STEPS, **arguments)
        outcome.samples += take_turns(running, setting.times(REPETITIONS), name, on_sample=setting.log_sample)
        outcome.figures += [Value(each, "peak memory", running[each].ask("memory"), name) for each in SIDES]
    outcome.comparisons += [
        Comparison("together", "one_by_one", GOALS[name], name, note=f"{RUNS} runs of {STEPS} steps each"),
        Comparison("together", "one_by_one", None, name, "peak memory"),
    ]


def _side(name: str, suffix: str = "") -> Side:
    return Side(f"{name}{suffix}", SCRIPT, options=(name,))


def _work(setting: Setting) -> str:
    """A file of the same training examples under each of three prompts."""
    systems = (None, setting.context.trait.inoculation_system, STYLE)
    examples = [setting.encoded(setting.context.splits.train[:EXAMPLES], system) for system in systems]
    path = setting.scratch / "together.json"
    path.write_text(json.dumps(examples), encoding="utf-8")
    return str(path)
