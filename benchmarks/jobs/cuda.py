"""Training steps on a CUDA device, at the shapes of the plan's models; and the memory that they need, computed."""

from __future__ import annotations

import torch

from benchmarks.inputs import Setting
from benchmarks.outcome import Comparison, Outcome, Value
from benchmarks.workers import HERE, Side, Worker, take_turns, workers

STEPS, SCRIPT = HERE / "sides" / "training.py", HERE / "sides" / "cuda.py"
TOKENS, BATCH, REPETITIONS = 512, 4, 8
EXACT, ROUNDED = 1e-3, 0.05  # alignments against the CPU's float32: in float32, in bfloat16
# Several of the larger model would not fit side by side.
SIDES = {
    "qwen3-0.6b": {"plain_autocast": ("autocast", 1), "ours": ("ours", 101), "ours_unlogged": ("unlogged", 1),
                   "ours_1000": ("ours", 1001), "floor": ("floor", 1)},
    "qwen2.5-7b": {"plain_autocast": ("autocast", 1), "ours": ("ours", 101)},
}  # fmt: skip


def run(setting: Setting, outcome: Outcome) -> None:
    """Compute the memory anywhere; with a CUDA device, check the numbers against the CPU, then time and measure."""
    with Worker(Side("cuda", SCRIPT), setting.scratch) as worker:
        for shape in SIDES:
            parts = worker.ask("needed", shape=shape, tokens=TOKENS, batch_size=BATCH)
            total = sum(parts.values())
            outcome.figures += [Value("ours", f"needed, computed: {name}", size, shape) for name, size in parts.items()]
            outcome.figures.append(Value("ours", "needed, computed", total, shape))
            setting.say(f"  {shape}: {total / 1e9:.1f} GB computed for {BATCH} x {TOKENS} tokens: " + _told(parts))
        if not torch.cuda.is_available():
            outcome.missing["any CUDA device"] = "there is none on this machine"
            return
        for shape in SIDES:
            for name, away in worker.ask("deviations", shape=shape).items():
                outcome.check("ours", f"{shape}, {name} against the CPU", away, EXACT if "32" in name else ROUNDED)
            outcome.check("ours", f"{shape}, waits for the device a step", worker.ask("waits", shape=shape), 0)
    for shape, sides in SIDES.items():
        _time(setting, outcome, shape, sides)


def _time(setting: Setting, outcome: Outcome, shape: str, sides: dict[str, tuple[str, int]]) -> None:
    count = setting.times(REPETITIONS)
    told = {"dtype": "bfloat16", "batch_size": BATCH, "steps": count + 3, "tokens": TOKENS, "shape": shape}
    with workers(
        [Side(name, STEPS, options=(option,)) for name, (option, _) in sides.items()], setting.scratch
    ) as all_:
        for name, worker in all_.items():
            worker.ask("prepare", **told, directions=sides[name][1])
        outcome.samples += take_turns(all_, count, shape, tell=setting.tell)
        outcome.figures += [Value(name, "peak memory", all_[name].ask("memory"), shape) for name in sides]
    goals = {"plain_autocast": 0.5, "ours_unlogged": 1.03, "floor": 2.2}
    outcome.comparisons += [Comparison("ours", name, goals[name], shape) for name in goals if name in sides]
    if "ours_1000" in sides:
        outcome.comparisons.append(Comparison("ours_1000", "ours_unlogged", 1.08, shape))
    outcome.comparisons.append(Comparison("ours", "plain_autocast", 1.0, shape, "peak memory"))


def _told(parts: dict[str, int]) -> str:
    return ", ".join(f"{name} {size / 1e9:.2f}" for name, size in parts.items())
