"""What logging costs as layers, directions, sequence and batch grow: a logged step over an unlogged one."""

from __future__ import annotations

from typing import Any

from benchmarks.inputs import Setting
from benchmarks.outcome import Comparison, Outcome, Value
from benchmarks.workers import HERE, Side, take_turns, workers

SCRIPT = HERE / "sides" / "training.py"
REPETITIONS = 5
HELD = "held for logging"
# Setting -> what differs from the usual: all layers, 101 directions, 128 tokens, batches of 4.
USUAL = {"layers": 30, "directions": 101, "tokens": 128, "batch_size": 4}
SETTINGS: dict[str, dict[str, int]] = {
    "layers 1": {"layers": 1}, "layers 8": {"layers": 8}, "layers 30": {},
    "directions 1": {"directions": 1}, "directions 101": {}, "directions 1001": {"directions": 1001},
    "tokens 128": {"batch_size": 1}, "tokens 256": {"tokens": 256, "batch_size": 1},
    "tokens 512": {"tokens": 512, "batch_size": 1}, "tokens 1024": {"tokens": 1024, "batch_size": 1},
    "batch 1": {"batch_size": 1}, "batch 4": {}, "batch 16": {"batch_size": 16},
}  # fmt: skip


def run(setting: Setting, outcome: Outcome) -> None:
    """Time each setting once, though several names may mean it; check that longer sequences hold nothing more."""
    count = setting.times(REPETITIONS)
    sides = [
        Side(name, SCRIPT, options=(option,)) for name, option in (("ours", "ours"), ("ours_unlogged", "unlogged"))
    ]
    seen: dict[tuple[tuple[str, int], ...], str] = {}
    with workers(sides, setting.scratch) as asked:
        for name, changed in SETTINGS.items():
            wanted = {**USUAL, **changed}
            known = seen.setdefault(tuple(wanted.items()), name)
            if known != name:
                _repeat(outcome, known, name)
            else:
                told: dict[str, Any] = {"dtype": "bfloat16", "steps": count + 3, **wanted}
                for worker in asked.values():
                    worker.ask("prepare", **told)
                outcome.samples += take_turns(asked, count, name, tell=setting.tell)
                holds = asked["ours"].ask("held") - asked["ours_unlogged"].ask("held")
                outcome.figures.append(Value("ours", HELD, float(holds), name))
                setting.say(f"  {name:<14} holds {holds:,} bytes for logging")
            outcome.comparisons.append(Comparison("ours", "ours_unlogged", None, name))
    holds = {value.setting: value.value for value in outcome.figures if value.name == HELD}
    short, long = holds["tokens 128"], holds["tokens 1024"]
    outcome.check("ours", f"bytes {HELD} at 1,024 tokens over those at 128", long / short, 1.0)


def _repeat(outcome: Outcome, known: str, name: str) -> None:
    """What was measured under one name, under another too."""
    outcome.samples += [type(s)(s.side, s.repetition, s.seconds, name) for s in outcome.samples if s.setting == known]
    outcome.figures += [value._replace(setting=name) for value in outcome.figures if value.setting == known]
