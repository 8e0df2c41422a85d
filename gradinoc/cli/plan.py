"""`gradinoc plan`: estimate a study's cost and the power of its claims."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from gradinoc.api import VARIANCES
from gradinoc.claims.c7.c7b import C7B
from gradinoc.cli.output import duration, print_notes, print_table, size
from gradinoc.errors import GradinocError, StudyError, printable
from gradinoc.power.design import cautions, dead_ends, design_of, reach_table
from gradinoc.power.planning import power
from gradinoc.power.prospects import OBSERVED, OF_INTEREST
from gradinoc.power.variances import TINY, Variances, estimate, load_variances
from gradinoc.power.written import written_power, written_reach
from gradinoc.report.figures.power import plot_power
from gradinoc.report.figures.style import save_figure
from gradinoc.report.tables import write_table
from gradinoc.study.arms import TRAIT
from gradinoc.study.description import Study
from gradinoc.study.loading import load_study

if TYPE_CHECKING:
    from gradinoc.pipeline.estimate import Estimate

WORKERS = (1, 4, 32, 256)  # of an engine, where the study names no number
PROMPTS = "The first training question under each prompt; and its tokens under inoculation's, with and without loss"


@dataclass(frozen=True)
class Wanted:
    """The options of `gradinoc plan`; see its --help."""

    cost: bool
    power: bool
    past: str | None
    simulations: int
    jobs: int
    freeze: Path | None = None
    engine: bool = False


def plan_study(name: str, settings: Sequence[str], wanted: Wanted, store: Path, artifacts: Path) -> None:
    """Print and write what the study cannot decide, its cost, prompts, reach and power; freeze it if asked."""
    if wanted.engine and not wanted.cost:
        raise StudyError("--engine adds to the cost, which --no-cost turns off: drop one")
    if wanted.past and not wanted.power:
        raise StudyError("--past sets the variances for the power simulation, which --no-power turns off: drop one")
    study = load_study(name, list(settings))
    design, folder = design_of(study), artifacts / study.name
    sys.stdout.write("".join(f"{line}\n\n" for line in (*map(str, dead_ends(design)), *cautions(design))))
    sys.stdout.flush()
    if wanted.freeze:
        _freeze(study, store, wanted.freeze)
    past = _past(wanted.past, store, artifacts) if wanted.past else None
    carried = _carried(study, wanted.past, artifacts)
    if design.arms.removed and carried is not None and carried < study.rules.carried:
        sys.stdout.write(f"{_nothing_to_remove(study, carried)}\n\n")
    if wanted.cost:
        _print_cost(study, folder, wanted.engine)
    sys.stdout.write(written_reach(study))
    write_table(reach_table(study), folder / "design_reach.csv")
    if wanted.power:
        _print_power(study, wanted, past, artifacts)
    sys.stdout.write(f"\nTables{' and figure' if wanted.power else ''}: {printable(folder)}\n")


def _freeze(study: Study, store: Path, file: Path) -> None:
    """Write the plan to `file`, and print how it is used."""
    from gradinoc.pipeline.steps.frozen_plan import freeze  # here: with it comes torch
    from gradinoc.pipeline.storage.store import Store

    digest = freeze(study, Store(store), file)
    sys.stdout.write(
        f"Frozen: {printable(file)} (SHA-256 {digest}; publish it, or commit the file). "
        f"Run it with: gradinoc run {printable(file)}\n\n"
    )


def _carried(study: Study, past: str | None, artifacts: Path) -> float | None:
    """Return the share that C7b found along the direction, in the past study's report, else as published; if any."""
    report = artifacts / load_study(past).name / "claims.csv" if past else None
    if report is not None and report.is_file():
        table = pd.read_csv(report)
        found = table.loc[(table["claim"] == C7B.key) & (table["key"] == "share"), "estimate"]
        return float(found.item()) if len(found) and found.notna().all() else None
    return study.published.carried


def _nothing_to_remove(study: Study, carried: float) -> str:
    """Return what C7b says beforehand of arms that remove the component along the trait's direction."""
    spent = [run for run in study.arm_runs.values() if run.settings.direction == TRAIT]
    others = sorted({run.settings.direction for run in study.arm_runs.values()} - {TRAIT})
    beside = f"; arms along {' and '.join(others)} directions are trained as well" if others else ""
    return (
        f"C7b found that {carried:.2g} of what inoculation changes runs along the direction: there is next to nothing "
        f"to remove, and {len(spent)} of the {len(study.arm_runs)} runs with an intervention are spent on it{beside}."
    )


def _print_power(study: Study, wanted: Wanted, past: Variances | None, artifacts: Path) -> None:
    folder = artifacts / study.name
    variances = past or load_variances(TINY)
    effects = [OF_INTEREST, OBSERVED] if past else [OF_INTEREST]
    table = power(study, variances, effects, wanted.simulations, wanted.jobs, _counter())
    sys.stdout.write(f"\n{written_power(study, variances, table)}")
    write_table(table, folder / "design.csv")
    save_figure(plot_power(table), folder / "figures", "design_power")


def _print_cost(study: Study, folder: Path, engine: bool) -> None:
    """Print the cost as tables, or why it is not known."""
    from gradinoc.pipeline.estimate import estimate as estimate_cost  # here: with it comes torch

    try:
        asked = study.engine.workers
        cost = estimate_cost(study, ((1, asked) if asked > 1 else WORKERS) if engine else ())
    except GradinocError as error:
        sys.stdout.write(f"Cost of study {study.name}: not known. {error}\n\n")
        return
    sys.stdout.write(f"Cost of study {study.name}, estimated\n\n")
    stages = cost.stages
    rows = [
        [row.stage, str(row.steps), f"{row.tokens:,}", size(row.flops, "FLOP"), duration(row.seconds)]
        for row in stages.itertuples()
    ]
    total = stages[["steps", "tokens", "flops", "seconds"]].sum()
    sums = (
        f"{total['steps']:.0f}",
        f"{total['tokens']:,.0f}",
        size(total["flops"], "FLOP"),
        duration(total["seconds"]),
    )
    rows.append(["all", *sums])
    print_table(("stage", "steps", "tokens", "operations", "time"), rows, right=(1, 2, 3, 4))
    sys.stdout.write(f"\n{_in_words(cost)}\n\n{cost.adapted}.\n\n")
    print_table(("memory", "bytes"), [[what, size(held, "B")] for what, held in cost.memory.items()], right=(1,))
    sys.stdout.write(_fitting(cost))
    if engine:
        _print_engine(cost, folder)
    sys.stdout.write(f"\n{PROMPTS}\n\n")
    print_table(("prompt or tokens", "as the model reads it"), cost.rendered.rows())
    sys.stdout.write("\n")
    write_table(stages, folder / "cost.csv")


def _in_words(cost: Estimate) -> str:
    """Return the range of time, and what it rests on."""
    least, most = cost.seconds
    elsewhere = "" if cost.device == "cpu" else " on a processor; on such a device it has not been checked"
    threads = "1 thread" if cost.threads == 1 else f"{cost.threads} threads"
    return (
        f"About {duration(least)} to {duration(most)} for one process on {cost.device} ({threads}, {cost.dtype}, "
        f"{size(cost.weights)} weights) that has the machine to itself, report left out: an estimate from the matrix "
        f"products that this machine just did in a second or two, and from how two models used theirs{elsewhere}. "
        "Responses are taken to be as long as they may be."
    )


def _fitting(cost: Estimate) -> str:
    """Return, of a study that is too large for the device, by how much, and what would do."""
    needed = cost.needed
    if needed <= cost.capacity:
        return ""
    words = f"\nThat is more than this machine's {size(cost.capacity, 'B')} on {cost.device}."
    if cost.device == "cpu":
        return f"{words}\n"
    devices = -(-needed // cost.capacity)
    return f"{words} {devices} such devices hold it together: model.device_map=auto and model.kernels=plain.\n"


def _print_engine(cost: Estimate, folder: Path) -> None:
    """Print how long workers of an engine would take, for the study and for larger ones."""
    from gradinoc.pipeline.estimate import LEAST, MOST  # here: with it comes torch

    table = cost.on_workers
    counts = [name for name in table if name.startswith("workers ")]
    head = ("runs", "steps", *(_counted(int(name.split()[1])) for name in counts), "shortest")
    rows = [
        [f"{row['runs']:,.0f}", f"{row['steps']:,.0f}", *(duration(row[name]) for name in (*counts, "shortest"))]
        for _, row in table.iterrows()
    ]
    sys.stdout.write("\nOn an engine\n\n")
    print_table(head, rows, right=tuple(range(len(head))))
    sys.stdout.write(
        f"\nWorkers as fast as this processor by itself, of {size(cost.needed, 'B')} each; more runs are more seeds "
        f"of the conditions. Times are within {LEAST:g} and {MOST:g} of these. Handing steps out is left out; "
        "shortest: with as many workers as there is ever work for.\n"
    )
    write_table(table, folder / "engine.csv")


def _counted(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"


def _past(name: str, store: Path, artifacts: Path) -> Variances:
    """Return the variances of the past study: from its evidence in the store, else from its report's file.

    Raises:
        StudyError: neither is there, or they cannot be estimated.
    """
    from gradinoc.pipeline.run import Pipeline
    from gradinoc.pipeline.storage.store import Store

    past = load_study(name)
    pipeline = Pipeline(past, Store(store))
    missing = [key for key, entry in pipeline.entries.items() if not entry.complete()]
    left = artifacts / past.name / VARIANCES
    try:
        if not missing:
            return estimate(pipeline.evidence(), past.rules, past.name)
        if left.is_file():
            return load_variances(left)
    except ValueError as error:
        raise StudyError(f"--past {name}: {error}") from error
    raise StudyError(
        f"--past {name}: the store {store} lacks {len(missing)} of its {len(pipeline.steps)} "
        f"steps ({pipeline.steps[missing[0]].label!r} first), and there is no {left}; run it first: gradinoc run {name}"
    )


def _counter() -> Callable[[int, int], None]:
    """Return a callback that prints how many studies are simulated, about ten times in all."""
    tenths = 0

    def show(done: int, total: int) -> None:
        nonlocal tenths
        if done * 10 // total > tenths:
            tenths = done * 10 // total
            print_notes([f"simulated studies: {done}/{total}"])

    return show
