"""Training steps on a CUDA device, at the shapes of the plan's models; and the memory that they need, computed."""

from __future__ import annotations

import torch

from benchmarks.inputs import Setting
from benchmarks.jobs.training import side
from benchmarks.outcome import Comparison, Outcome, Value
from benchmarks.workers import HERE, Side, Worker, take_turns, workers

SCRIPT = HERE / "sides" / "cuda.py"
TOKENS, BATCH, REPETITIONS = 512, 4, 8
EXACT, ROUNDED = 1e-3, 0.05  # alignments against the CPU's float32: in float32, in bfloat16
SMALL, LARGE = "qwen3-0.6b", "qwen2.5-7b"
# Name -> (option, directions)
SIDES = {
    "plain": ("plain", 1), "plain_autocast": ("autocast", 1), "ours": ("ours", 101), "ours_unlogged": ("unlogged", 1),
    "ours_1000": ("ours", 1001), "floor": ("floor", 1),
}  # fmt: skip
# Setting -> (shape, its sides). Three of the larger model would not fit side by side: each plain run meets ours alone.
ROUNDS: dict[str, tuple[str, tuple[str, ...]]] = {
    SMALL: (SMALL, tuple(SIDES)),
    LARGE: (LARGE, ("plain_autocast", "ours")),
    f"{LARGE}, no autocast": (LARGE, ("plain", "ours")),
}
# Below half of both plain runs is below half of the faster one.
GOALS = {"plain": 0.5, "plain_autocast": 0.5, "ours_unlogged": 1.03, "floor": 2.2}


def run(setting: Setting, outcome: Outcome) -> None:
    """Compute the memory anywhere; with a CUDA device, check the numbers against the CPU, then time and measure."""
    with Worker(Side("cuda", SCRIPT), setting.scratch) as worker:
        for shape in (SMALL, LARGE):
            parts = worker.ask("needed", shape=shape, tokens=TOKENS, batch_size=BATCH)
            total = sum(parts.values())
            outcome.figures += [Value("ours", f"needed, computed: {name}", size, shape) for name, size in parts.items()]
            outcome.figures.append(Value("ours", "needed, computed", total, shape))
            setting.log(f"  {shape}: {total / 1e9:.1f} GB computed for {BATCH} x {TOKENS} tokens: " + _listed(parts))
        if not torch.cuda.is_available():
            outcome.missing["any CUDA device"] = "there is none on this machine"
            return
        for shape in (SMALL, LARGE):
            for name, away in worker.ask("deviations", shape=shape).items():
                outcome.check("ours", f"{shape}, {name} against the CPU", away, EXACT if "32" in name else ROUNDED)
            outcome.check("ours", f"{shape}, waits for the device a step", worker.ask("waits", shape=shape), 0)
    for name in ROUNDS:
        _time(setting, outcome, name)


def _time(setting: Setting, outcome: Outcome, name: str) -> None:
    shape, names = ROUNDS[name]
    count = setting.times(REPETITIONS)
    arguments = {"dtype": "bfloat16", "batch_size": BATCH, "steps": count + 3, "tokens": TOKENS, "shape": shape}
    with workers([side(each, SIDES[each][0]) for each in names], setting.scratch) as running:
        for each, worker in running.items():
            worker.ask("prepare", **arguments, directions=SIDES[each][1])
        outcome.samples += take_turns(running, count, name, on_sample=setting.log_sample)
        outcome.figures += [Value(each, "peak memory", running[each].ask("memory"), name) for each in names]
    outcome.comparisons += [Comparison("ours", each, GOALS[each], name) for each in GOALS if each in names]
    if "ours_1000" in names:
        outcome.comparisons.append(Comparison("ours_1000", "ours_unlogged", 1.08, name))
    plain = [each for each in names if each.startswith("plain")]
    outcome.comparisons += [Comparison("ours", each, 1.0, name, "peak memory", "peak memory") for each in plain]


def _listed(parts: dict[str, int]) -> str:
    return ", ".join(f"{name} {size / 1e9:.2f}" for name, size in parts.items())
