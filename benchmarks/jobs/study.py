"""A whole study by `pytest claims`, against the former version of this project: processor time, wall time, memory."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.environments import NotInstalledError
from benchmarks.former import NAME, former
from benchmarks.inputs import Setting
from benchmarks.outcome import Comparison, Outcome, Value
from benchmarks.usage import Usage, measure
from benchmarks.workers import HERE, THREADS, CheckError, Sample, SideError, take_turns

OURS, FORMER = "ours", "former"
CHECKED, CHANGES = "tiny", ("seeds=[0]",)  # computed in float32 whatever the machine
# As the former version does it: stages on which no claim rests.
AS_BEFORE = ("secondary.matched_checkpoints=true", "secondary.early_drift=true")
EQUAL = 1e-4  # of every number in the tables of the checked study
TABLES = ("alignments", "drift", "layers", "nulls", "pool", "responses", "training", "training_nulls", "unrelated")
PROCESSOR, WALL, MEMORY = "processor time", "wall time", "memory"
GOAL, GOAL_AMX = 0.35, 0.60  # of processor time
OF_MEMORY, ALLOWED = 0.45, 1.9e9  # of a worker's memory: a share of the former version's, and bytes
WARM, GOAL_WARM = "warm run", 0.5  # of a study whose steps are all in the store, wall time
REPETITIONS, WARM_REPETITIONS = 1, 5


def run(setting: Setting, outcome: Outcome) -> None:
    """Check that both compute the same tables of a small study, then run the study with either, in turns."""
    try:
        python, files = former()
    except NotInstalledError as error:
        outcome.missing[FORMER] = str(error)
        return
    sides = {FORMER: (python, files), OURS: (Path(sys.executable), HERE.parent)}
    check(setting, outcome, sides)
    running = {name: Warm(setting.scratch / f"{name}-{CHECKED}", *side) for name, side in sides.items()}
    outcome.samples += take_turns(running, setting.times(WARM_REPETITIONS), WARM, on_sample=setting.log_sample)
    outcome.comparisons.append(
        Comparison(OURS, FORMER, GOAL_WARM, WARM, note=f"gradinoc run {CHECKED}, one seed, every step in the store")
    )
    for repetition in range(1, setting.times(REPETITIONS) + 1):
        for name, (interpreter, folder) in sides.items():
            used = _study(setting, f"{name}-{repetition}", interpreter, folder, setting.study, setting.changes)
            for what, seconds in ((PROCESSOR, used.cpu), (WALL, used.wall)):
                outcome.samples.append(Sample(name, repetition, seconds, what))
                setting.log_sample(outcome.samples[-1])
            outcome.figures.append(Value(name, "peak memory", used.memory, MEMORY))
            setting.log(f"  {name}: {used.memory / 1e9:.2f} GB in the largest process")
    outcome.figures.append(Value("allowed", "peak memory", ALLOWED, MEMORY))
    said = " ".join(["study", setting.study, *setting.changes, f"against commit {NAME}; {processor()}"])
    judged = setting.study == "smollm2"
    outcome.comparisons += [
        Comparison(OURS, FORMER, (GOAL_AMX if has_amx() else GOAL) if judged else None, PROCESSOR, note=said),
        Comparison(OURS, FORMER, None, WALL, note=said),
        Comparison(OURS, FORMER, OF_MEMORY if judged else None, MEMORY, "peak memory", "of the largest process, PSS"),
    ]
    if judged and outcome.figures:
        outcome.comparisons.append(Comparison(OURS, "allowed", 1.0, MEMORY, "peak memory", "1.9 GB are allowed"))


@dataclass(frozen=True)
class Warm:
    """`gradinoc run` of the study that was checked, whose results are in `folder`, by one of the two versions."""

    folder: Path
    python: Path
    files: Path

    def ask(self, do: str, **_: Any) -> float:
        """Wall seconds of one run."""
        places = [word for place in ("store", "artifacts") for word in (f"--{place}", str(self.folder / place))]
        settings = [word for change in _changes(self.files) for word in ("--set", change)]
        command = [str(self.python), "-m", "gradinoc", "run", CHECKED, *settings, *places]
        return measure(command, self.files, _environment(self.files), self.folder / f"{do}.txt").wall


def check(setting: Setting, outcome: Outcome, sides: dict[str, tuple[Path, Path]]) -> None:
    """Compare the tables of the study `CHECKED`, computed by either version with the same stages.

    Raises:
        CheckError: tables have other rows, or a number is further apart than `EQUAL`.
    """
    tables = {}
    for name, (python, files) in sides.items():
        _study(setting, f"{name}-{CHECKED}", python, files, CHECKED, _changes(files))
        tables[name] = setting.scratch / f"{name}-{CHECKED}" / "store"
    for table in TABLES:
        found, expected = (gathered(tables[name], table) for name in (OURS, FORMER))
        outcome.check(OURS, f"table {table} of study {CHECKED}", furthest(found, expected), EQUAL)
        setting.log(f"  {outcome.checks[-1]}")


def gathered(store: Path, table: str) -> pd.DataFrame:
    """The table of every step in a store, one below the other."""
    return pd.concat([pd.read_parquet(path) for path in sorted(store.glob(f"*/*/{table}.parquet"))])


def furthest(found: pd.DataFrame, expected: pd.DataFrame) -> float:
    """The largest difference of a number in two tables, whose rows may be in another order.

    Raises:
        CheckError: other columns, or other rows (what is no fraction tells them apart).
    """
    numbers = [column for column in expected if pd.api.types.is_float_dtype(expected[column])]
    names = [column for column in expected if column not in numbers]
    if set(found) != set(expected):
        raise CheckError(f"columns {sorted(found)}, expected {sorted(expected)}")
    ours, theirs = (table.sort_values(names, kind="stable", ignore_index=True) for table in (found, expected))
    if not ours[names].equals(theirs[names]):
        raise CheckError(f"other rows in {names}: {len(ours)}, expected {len(theirs)}")
    apart = np.abs(ours[numbers].to_numpy(dtype=float) - theirs[numbers].to_numpy(dtype=float))
    absent = ours[numbers].isna().to_numpy(), theirs[numbers].isna().to_numpy()
    return float("inf") if (absent[0] != absent[1]).any() else float(np.nanmax(apart, initial=0.0))


def _study(setting: Setting, name: str, python: Path, files: Path, study: str, changes: tuple[str, ...]) -> Usage:
    """Run a study from nothing, with two workers, in the folder `name` of the scratch folder."""
    folder = setting.scratch / name
    folder.mkdir()
    places = [word for place in ("store", "artifacts", "datasets") for word in (f"--{place}", str(folder / place))]
    settings = [word for change in changes for word in ("--set", change)]
    command = [
        str(python), "-m", "pytest", "claims", "--study", study, "-n", str(THREADS), "--refuted", "report", "-q",
        "-p", "no:cacheprovider", *places, *settings,
    ]  # fmt: skip
    used = measure(command, files, _environment(files), folder / "log.txt")
    if not any((folder / "store").glob("drift/*/drift.parquet")):
        raise SideError(f"{name}: nothing was computed:\n{(folder / 'log.txt').read_text(encoding='utf-8')[-1000:]}")
    return used


def _changes(files: Path) -> tuple[str, ...]:
    """The settings of the study that is checked, for the version in the folder `files`."""
    return (*CHANGES, *(AS_BEFORE if files == HERE.parent else ()))


def _environment(files: Path) -> dict[str, str]:
    """What the version in the folder `files` runs with: its own code before any that is installed, and no hub."""
    return {
        **os.environ, "PYTHONPATH": str(files), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
        "OMP_NUM_THREADS": str(THREADS),
    }  # fmt: skip


def has_amx() -> bool:
    """Whether products in bfloat16 can use matrix units here; `ONEDNN_MAX_CPU_ISA` may forbid them."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16")) and not os.environ.get("ONEDNN_MAX_CPU_ISA")


def processor() -> str:
    """What of the processor decides which precision is the faster one."""
    known = torch.cpu.get_capabilities()
    has = [name for name in ("amx_bf16", "avx512_bf16", "bf16") if known.get(name)]
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return f"processor with {' and '.join(has) or 'no bfloat16'}" + (f", limited to {limit}" if limit else "")
