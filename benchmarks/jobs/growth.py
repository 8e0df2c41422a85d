"""What logging costs as layers, directions, sequence and batch grow: a logged step over an unlogged one."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.inputs import Setting
from benchmarks.jobs.training import side
from benchmarks.outcome import Comparison, Outcome, Value
from benchmarks.workers import Answering, CheckError, take_turns, workers

REPETITIONS, CHECKED_STEPS = 5, 2
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
SHORT, LONG = "tokens 128", "tokens 1024"


def run(setting: Setting, outcome: Outcome) -> None:
    """Check that longer sequences hold nothing more, then time each setting once, though several names may mean it."""
    count = setting.times(REPETITIONS)
    sides = [side("ours", "ours"), side("ours_unlogged", "unlogged")]
    seen: dict[tuple[tuple[str, int], ...], str] = {}
    with workers(sides, setting.scratch) as running:
        held = {}
        for name in (SHORT, LONG):
            _prepare(running, CHECKED_STEPS, name)
            take_turns(running, CHECKED_STEPS, name, warm_up=False)
            held[name] = _held(running)
        check(outcome, held[SHORT], held[LONG])
        setting.log(f"  {held[SHORT]:,} bytes held for logging at 128 tokens, {held[LONG]:,} at 1,024")
        for name, changed in SETTINGS.items():
            known = seen.setdefault(tuple({**USUAL, **changed}.items()), name)
            if known != name:
                _repeat(outcome, known, name)
            else:
                _prepare(running, count, name)
                outcome.samples += take_turns(running, count, name, on_sample=setting.log_sample)
                outcome.figures.append(Value("ours", HELD, float(_held(running)), name))
            outcome.comparisons.append(Comparison("ours", "ours_unlogged", None, name))


def check(outcome: Outcome, short: int, long: int) -> None:
    """Judge the bytes held at 128 and at 1,024 tokens.

    Raises:
        CheckError: more are held at more tokens, or none at all.
    """
    if short <= 0:
        raise CheckError(f"ours, bytes {HELD} at 128 tokens: {short}, expected some: nothing was logged")
    outcome.check("ours", f"bytes {HELD} at 1,024 tokens over those at 128", long / short, 1.0)


def _prepare(running: Mapping[str, Answering], steps: int, name: str) -> None:
    for worker in running.values():
        worker.ask("prepare", dtype="bfloat16", steps=steps + 3, **{**USUAL, **SETTINGS[name]})


def _held(running: Mapping[str, Answering]) -> int:
    return int(running["ours"].ask("held")) - int(running["ours_unlogged"].ask("held"))


def _repeat(outcome: Outcome, known: str, name: str) -> None:
    """What was measured under one name, under another too."""
    outcome.samples += [type(s)(s.side, s.repetition, s.seconds, name) for s in outcome.samples if s.setting == known]
    outcome.figures += [value._replace(setting=name) for value in outcome.figures if value.setting == known]
