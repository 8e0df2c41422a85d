"""Simulated studies in a store: judged in blocks, so that what was stopped goes on, and several commands share them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pandas as pd

from gradinoc.pipeline.storage.contents import load_table, save_table
from gradinoc.pipeline.storage.provenance import code_version, library_versions
from gradinoc.pipeline.storage.store import Entry, Store, load_or_compute
from gradinoc.power.calibration import studies
from gradinoc.power.calibration.cases import Case
from gradinoc.power.pool import each

STAGE, FILE = "calibration", "studies.parquet"
BLOCK = 50  # studies of a result
LIBRARIES = ("numpy", "scipy", "pandas", "statsmodels")
Block = tuple[str, Case, range]


def kept_studies(
    count: int, worlds: Mapping[str, Case], root: Path, jobs: int = 0, tell: Callable[[int, int], None] | None = None
) -> pd.DataFrame:
    """`studies.run_studies` of `worlds`, of which only those are simulated that the store at `root` does not hold.

    Every world's first block comes before any second one. Blocks that another command works on are waited for in the
    end. A change of the code that simulates or judges, or of a world, has its studies simulated again.

    Raises:
        StoreError: the store cannot be read or written.
    """
    blocks = [
        (name, case, range(start, min(start + BLOCK, count)))
        for start in range(0, count, BLOCK)
        for name, case in worlds.items()
    ]
    for done, _ in enumerate(each(partial(_keep, root), blocks, jobs), start=1):
        if tell:
            tell(min(done * BLOCK, count * len(worlds)), count * len(worlds))
    found = pd.concat([_read(root, block) for block in blocks], ignore_index=True)
    order = {name: place for place, name in enumerate(worlds)}
    return found.sort_values(
        ["case", "study"], key=lambda column: column.map(order) if column.name == "case" else column, ignore_index=True
    )


def _entry(root: Path, block: Block) -> Entry:
    name, case, numbers = block
    return Store(root).entry(
        STAGE,
        {
            "case": name,
            "world": repr(case),
            "seed": studies.SEED,
            "studies": [numbers.start, numbers.stop],
            "code": code_version(studies.__name__),
            "packages": library_versions(*LIBRARIES),
        },
    )


def _keep(root: Path, block: Block) -> None:
    """Judge a block that is not there and that no other process works on."""
    entry = _entry(root, block)
    with entry.lock(wait=False) as mine:
        if mine:
            load_or_compute(entry, partial(_judge, block))


def _read(root: Path, block: Block) -> pd.DataFrame:
    return load_table(load_or_compute(_entry(root, block), partial(_judge, block)) / FILE)


def _judge(block: Block, folder: Path) -> None:
    save_table(pd.DataFrame(studies.judge_block(block)), folder / FILE)
