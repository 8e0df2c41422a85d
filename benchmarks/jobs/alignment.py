"""Alignment of a frozen model's gradients with 101 directions at every layer, three conditions."""

from __future__ import annotations

from pathlib import Path

from benchmarks.environments import NotInstalledError, peer
from benchmarks.inputs import Setting
from benchmarks.outcome import Comparison, Outcome, largest_difference, load
from benchmarks.workers import HERE, Side, Worker, take_turns, workers

PEERS = ("captum", "nnsight", "transformer_lens")
QUESTIONS, DIRECTIONS, REPETITIONS = 8, 101, 5
EXACT = 1e-3  # cosine, float32 against brute force
ROUNDED = 0.05  # cosine, bfloat16 against brute force in float32: wiring, not precision, would exceed it
SCRIPT = HERE / "sides" / "alignment.py"
# Read by example: every direction at the primary position, the first at the others.
POSITIONS = ("last_prompt_token", "first_assistant_token", "completion_sum")


def run(setting: Setting, outcome: Outcome) -> None:
    """Check every side against brute force in float32, then time them in bfloat16."""
    work, count = setting.alignment_work(QUESTIONS, DIRECTIONS)
    checked = [0, QUESTIONS + 1, 2 * QUESTIONS + 2]  # one of each condition
    assert checked[-1] < count
    sides = [_own("ours")]
    for name in PEERS:
        try:
            sides.append(peer(name))
        except NotInstalledError as error:
            outcome.missing[name] = str(error)
    sides.append(_own("each_direction"))
    arguments = {"model": setting.model, "work": work}
    with Worker(_own("reference"), setting.scratch) as reference:
        reference.ask("prepare", **arguments, dtype="float32", only=checked)
        expected = load(_asked(reference, setting))
    with workers(sides, setting.scratch) as running:
        for name, worker in running.items():
            for dtype, limit in (("float32", EXACT), ("bfloat16", ROUNDED)):
                worker.ask("prepare", **arguments, dtype=dtype, only=checked)
                found = load(_asked(worker, setting))
                for place, position in enumerate(POSITIONS):
                    away = largest_difference(found[place], expected[place])
                    outcome.check(name, f"largest deviation at {position}, {dtype}, cosine", away, limit)
                    setting.log(f"  {outcome.checks[-1]}")
        for worker in running.values():
            worker.ask("prepare", **arguments, dtype="bfloat16")
        outcome.samples += take_turns(running, setting.times(REPETITIONS), on_sample=setting.log_sample)
    extrapolated = f"one direction timed, the backward passes times {DIRECTIONS}"
    outcome.comparisons += [
        *(Comparison("ours", side.name, 1.0) for side in sides[1:-1]),
        Comparison("ours", "each_direction", 1 / 30, note=extrapolated),
    ]


def _own(name: str) -> Side:
    return Side(name, SCRIPT, options=(name,))


def _asked(worker: Worker, setting: Setting) -> Path:
    path = setting.scratch / f"{worker.side.name}.npy"
    worker.ask("check", path=str(path))
    return path
