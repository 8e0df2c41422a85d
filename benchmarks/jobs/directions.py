"""Extraction of the trait direction at every layer, from 250 questions under two system prompts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.environments import NotInstalledError, peer
from benchmarks.inputs import Setting
from benchmarks.outcome import Comparison, Outcome, Value, load
from benchmarks.workers import HERE, Side, Worker, take_turns, workers

GOALS = {"saklas": 1 / 1.8, "steering_vectors": 1 / 2, "repeng": 1 / 2.2}
CHECKED, REPETITIONS = 16, 5
QUESTIONS = {"bfloat16": 250, "float32": 50}  # by dtype, which is the setting; the study finds directions in float32
JUDGED = "float32"  # the goals are for this dtype
EXACT, FAIR = 1e-4, 1e-3  # 1 - cosine with brute force in float32: of ours, of a peer's
NORMED = ("repeng",)  # its last hidden state is Hugging Face's, taken after the final norm
SCRIPT = HERE / "sides" / "directions.py"


def run(setting: Setting, outcome: Outcome) -> None:
    """Check every side's mean difference against brute force in float32, then time all in both dtypes."""
    few = setting.prompts(CHECKED, "few.json")
    sides = [_own("ours")]
    for name in GOALS:
        try:
            sides.append(peer(name))
        except NotInstalledError as error:
            outcome.missing[name] = str(error)
    arguments = {"model": setting.model, "prompts": few}
    with Worker(_own("reference"), setting.scratch) as reference:
        expected = _found(reference, setting, arguments, "float32")
    with workers([*sides, _own("floor")], setting.scratch) as running:
        for side in sides:
            for dtype in QUESTIONS:
                away = 1 - cosines(_found(running[side.name], setting, arguments, dtype), expected)
                check(outcome, side.name, dtype, away)
                setting.log(
                    f"  {side.name}, {dtype}: 1 - cosine {away[:-1].max():.2g}, at the last layer {away[-1]:.2g}"
                )
        for dtype, count in QUESTIONS.items():
            # A warm-up on few prompts: another round on all of them would take minutes.
            for prompts, repetitions in (
                (few, 0),
                (setting.prompts(count, f"{dtype}.json"), setting.times(REPETITIONS)),
            ):
                for worker in running.values():
                    worker.ask("prepare", **arguments | {"prompts": prompts}, dtype=dtype)
                outcome.samples += take_turns(
                    running, repetitions, dtype, warm_up=not repetitions, on_sample=setting.log_sample
                )
            goals = GOALS if dtype == JUDGED else {}
            outcome.comparisons += [Comparison("ours", side.name, goals.get(side.name), dtype) for side in sides[1:]]
            outcome.comparisons.append(
                Comparison("ours", "floor", None, dtype, note="the blocks' products alone, beginnings computed once")
            )


def check(outcome: Outcome, name: str, dtype: str, away: NDArray[np.float64]) -> None:
    """Judge `away`, 1 - cosine with brute force by layer, in float32; in bfloat16 keep it as a value.

    Raises:
        CheckError: it is too large.
    """
    below, last = (f"1 - least cosine below the last layer, {dtype}", f"1 - cosine at the last layer, {dtype}")
    for what, value in ((below, float(away[:-1].max())), (last, float(away[-1]))):
        if dtype == "float32" and not (what == last and name in NORMED):
            outcome.check(name, what, value, EXACT if name == "ours" else FAIR)
        else:
            outcome.figures.append(Value(name, what, value))


def cosines(found: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine of the rows of two arrays `[layers, hidden]`."""
    found, expected = found.astype(float), expected.astype(float)
    return np.asarray((found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1))


def _own(name: str) -> Side:
    return Side(name, SCRIPT, options=(name,))


def _found(worker: Worker, setting: Setting, arguments: dict[str, str], dtype: str) -> NDArray[np.float64]:
    worker.ask("prepare", **arguments, dtype=dtype)
    path = setting.scratch / f"{worker.side.name}.npy"
    worker.ask("check", path=str(path))
    return np.asarray(load(path))
