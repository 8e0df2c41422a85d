"""Extraction of the trait direction at every layer, from 250 questions under two system prompts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.environments import NotInstalledError, peer
from benchmarks.inputs import Setting
from benchmarks.outcome import Comparison, Outcome, Value, load
from benchmarks.workers import HERE, Side, Worker, take_turns, workers

GOALS = {"saklas": 1 / 1.2, "steering_vectors": 1 / 3, "repeng": 1 / 3}
PROMPTS, CHECKED, REPETITIONS = 250, 16, 5
EXACT = 1e-4  # 1 - cosine with brute force
SCRIPT = HERE / "sides" / "directions.py"


def run(setting: Setting, outcome: Outcome) -> None:
    """Check ours against brute force in float32, report how near the others come, then time all in bfloat16."""
    few, all_prompts = setting.prompts(CHECKED, "few.json"), setting.prompts(PROMPTS, "prompts.json")
    sides = [Side("ours", SCRIPT, options=("ours",))]
    for name in GOALS:
        try:
            sides.append(peer(name))
        except NotInstalledError as error:
            outcome.missing[name] = str(error)
    told = {"model": setting.model, "prompts": few}
    with Worker(Side("reference", SCRIPT, options=("reference",)), setting.scratch) as reference:
        expected = _found(reference, setting, told, "float32")
    with workers(sides, setting.scratch) as asked:
        for name, worker in asked.items():
            for dtype in ("float32", "bfloat16"):
                away = 1 - cosines(_found(worker, setting, told, dtype), expected)
                # Hugging Face's last hidden state is normed, and so is repeng's.
                outcome.figures.append(Value(name, f"1 - cosine at the last layer, {dtype}", float(away[-1])))
                if name == "ours" and dtype == "float32":
                    outcome.check(name, "1 - least cosine with brute force", float(away.max()), EXACT)
                else:
                    outcome.figures.append(Value(name, f"1 - least cosine below it, {dtype}", float(away[:-1].max())))
                setting.say(f"  {name}, {dtype}: 1 - cosine {away[:-1].max():.2g}, at the last layer {away[-1]:.2g}")
        # The check in bfloat16 was each side's warm-up: another on all prompts would take minutes.
        for worker in asked.values():
            worker.ask("prepare", **told | {"prompts": all_prompts}, dtype="bfloat16")
        outcome.samples += take_turns(asked, setting.times(REPETITIONS), warm_up=False, tell=setting.tell)
    outcome.comparisons += [Comparison("ours", side.name, GOALS[side.name]) for side in sides[1:]]


def cosines(found: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine of the rows of two arrays `[layers, hidden]`."""
    found, expected = found.astype(float), expected.astype(float)
    return np.asarray((found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1))


def _found(worker: Worker, setting: Setting, told: dict[str, str], dtype: str) -> NDArray[np.float64]:
    worker.ask("prepare", **told, dtype=dtype)
    path = setting.scratch / f"{worker.side.name}.npy"
    worker.ask("check", path=str(path))
    return np.asarray(load(path))
