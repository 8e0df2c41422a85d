"""How often a study of a given size would support each claim: power, by simulation from the variances of a past one.

C1 to C3 rest on examples of the frozen model, C4 on runs. Each part is simulated by itself and judged by the claims'
own rules; that all four are supported is the product of both. Gates are taken to hold.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from gradinoc.claims.c1 import C1
from gradinoc.claims.c2 import C2
from gradinoc.claims.c3 import C3
from gradinoc.claims.c4 import C4
from gradinoc.claims.finding import Claim, Status
from gradinoc.claims.tables import Evidence
from gradinoc.power.pool import each
from gradinoc.power.prospects import (
    EVALUATION,
    LAYERS,
    OBSERVED,
    OF_INTEREST,
    STEPS,
    Closest,
    closest_of,
    in_training,
    scenario_of,
    smallest_of_interest,
)
from gradinoc.power.scenarios import Scenario
from gradinoc.power.simulate import simulate
from gradinoc.power.variances import Variances, templates_met
from gradinoc.study.description import Study
from gradinoc.study.design import CLAIMS, Design, design_of, floor, floors, smallest_p_table
from gradinoc.study.prompts import INOCULATION
from gradinoc.study.rules import Rules

EXAMPLES, SEEDS = (32, 96, 256), (3, 5, 8)  # of the grid, beside the study's own
SIMULATIONS = 100
SEED = 0  # of every simulated study; each has a child of its own
PORTION = 5  # simulated studies that a process is handed at a time
ALL = "all four"
ON_EXAMPLES, ON_RUNS = "examples", "runs"
PARTS = (ON_EXAMPLES, ON_RUNS)
COLUMNS = ("effect", "examples", "seeds", "claim", "power", "error", "refuted", "simulations", "smallest_p")


@dataclass(frozen=True)
class Cell:
    """A part of a study to be simulated: its scenario, how many examples or seeds, and what decides.

    Attributes:
        effect: which of `prospects.EFFECTS` the scenario has.
        part: `ON_EXAMPLES` (C1, C2, C3) or `ON_RUNS` (C4).
        size: examples or seeds.
        closest: the unrelated trait that T(v) has to leave behind.
        directions: random directions of each kind.
    """

    effect: str
    part: str
    size: int
    scenario: Scenario
    closest: Closest
    directions: int
    rules: Rules


Outcomes = tuple[Status, ...]  # of C1, C2, C3, or of C4 alone


def power(
    study: Study,
    variances: Variances,
    effects: Sequence[str],
    simulations: int = SIMULATIONS,
    jobs: int = 0,
    tell: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """One row an effect x examples x seeds x claim: share of simulated studies in which the claim is supported.

    Columns are `COLUMNS`: `power` with its Monte-Carlo standard `error`, the share `refuted`, and the smallest p that
    the claim can reach. The sizes are `EXAMPLES` x `SEEDS` and the study's own; everything else is the study's. Each
    simulated study has its own child of `SEED`'s sequence, so neither `jobs` (processes; 0: one a core) nor other
    sizes change a number. `tell` hears of simulated studies done and to do.
    """
    design = design_of(study)
    sizes = {
        ON_EXAMPLES: sorted({*EXAMPLES, design.examples}),
        ON_RUNS: sorted({*SEEDS, design.seeds}),
    }
    cells = []
    for effect in effects:
        scenario, closest = scenario_of(variances, effect, study), closest_of(variances, effect, study)
        scenarios = {ON_EXAMPLES: scenario, ON_RUNS: in_training(scenario, variances, effect)}
        cells += [
            Cell(effect, part, size, scenarios[part], closest, design.directions, study.rules)
            for part in PARTS
            for size in sizes[part]
        ]
    found = _simulated(cells, simulations, jobs, tell)
    rows = []
    for effect in effects:
        for examples in sizes[ON_EXAMPLES]:
            for seeds in sizes[ON_RUNS]:
                on_examples, on_runs = found[effect, ON_EXAMPLES, examples], found[effect, ON_RUNS, seeds]
                reach = floors(replace(design, examples=examples, seeds=seeds))
                for claim, (share, error, refuted) in _shares(on_examples, on_runs).items():
                    least = max(reach.values()) if claim == ALL else reach[claim]
                    known = 0.0 if least > study.rules.alpha else error  # what a design excludes is no estimate
                    rows.append((effect, examples, seeds, claim, share, known, refuted, simulations, least))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _simulated(
    cells: Sequence[Cell], simulations: int, jobs: int, tell: Callable[[int, int], None] | None
) -> dict[tuple[str, str, int], list[Outcomes]]:
    """(effect, part, size) -> the outcomes of as many simulated studies."""
    # The largest first, so that no process is left alone with them.
    order = sorted(cells, key=lambda cell: (cell.part == ON_RUNS, cell.size), reverse=True)
    portions = [
        (cell, range(start, min(start + PORTION, simulations)))
        for cell in order
        for start in range(0, simulations, PORTION)
    ]
    found: dict[tuple[str, str, int], list[Outcomes]] = {}
    done = 0
    for (cell, _), outcomes in zip(portions, each(_judged, portions, jobs), strict=True):
        found.setdefault((cell.effect, cell.part, cell.size), []).extend(outcomes)
        done += len(outcomes)
        if tell:
            tell(done, simulations * len(cells))
    return found


def _judged(portion: tuple[Cell, range]) -> list[Outcomes]:
    cell, numbers = portion
    judge = judge_examples if cell.part == ON_EXAMPLES else judge_runs
    return [judge(cell, _rng(cell, number)) for number in numbers]


def _rng(cell: Cell, number: int) -> np.random.Generator:
    """The random numbers of one simulated study: a child of `SEED`'s sequence, of the cell's name and its number."""
    key = (*f"{cell.effect}, {cell.part}".encode(), cell.size, number)
    return np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=key))


def judge_examples(cell: Cell, rng: np.random.Generator) -> Outcomes:
    """What becomes of C1, C2 and C3 in a simulated study with `cell.size` examples."""
    met = round(templates_met(cell.scenario.templates, cell.size)) if cell.scenario.templates else 0
    evidence = simulate(
        cell.scenario, rng, examples=cell.size, templates=met, directions=cell.directions, seeds=1, **_small()
    )
    evidence = replace(evidence, unrelated=_along_closest(evidence.alignments, cell.closest, rng))
    return tuple(_status(claim, evidence, cell.rules) for claim in (C1, C2, C3))


def _along_closest(alignments: pd.DataFrame, closest: Closest, rng: np.random.Generator) -> pd.DataFrame:
    """The table `unrelated` of one trait that follows the trait's own `alignments` (one layer, one position)."""
    table = alignments[["condition", "example", "layer", "alignment"]].assign(trait="closest")
    table["alignment"] *= closest.slope
    table["alignment"] -= closest.shift * (table["condition"] == INOCULATION)
    table["alignment"] += rng.normal(0, closest.spread, len(table))
    return table


def judge_runs(cell: Cell, rng: np.random.Generator) -> Outcomes:
    """What becomes of C4 in a simulated study with `cell.size` seeds."""
    rules = cell.rules
    if floors(Design(3, cell.size, cell.directions, 1, rules))["C4"] > rules.alpha:
        return (Status.UNDECIDED,)
    evidence = simulate(cell.scenario, rng, examples=1, templates=0, directions=1, seeds=cell.size, **_small())
    return (_status(C4, evidence, rules),)


def _status(claim: Claim, evidence: Evidence, rules: Rules) -> Status:
    """What the claim's own rule makes of it; gates are taken to hold."""
    return claim.decide(claim.measure(evidence, rules, secondary=False), rules).status


def _small() -> dict[str, int | bool]:
    return {"layers": LAYERS, "steps": STEPS, "evaluation": EVALUATION, "positions": 1, "beside": False}


def _shares(on_examples: list[Outcomes], on_runs: list[Outcomes]) -> dict[str, tuple[float, float, float]]:
    """Claim, and all four -> share supported, its standard error, share refuted."""
    columns = [*zip(*on_examples, strict=True), *zip(*on_runs, strict=True)]
    found = {claim: _share(column) for claim, column in zip(CLAIMS, columns, strict=True)}
    together = _share([max(each, key=_weight) for each in on_examples])
    runs = found["C4"]
    both = together[0] * runs[0]
    error = math.hypot(together[0] * runs[1], runs[0] * together[1])
    found[ALL] = (both, error, 1 - (1 - together[2]) * (1 - runs[2]))
    return found


def _weight(status: Status) -> int:
    return (Status.SUPPORTED, Status.UNDECIDED, Status.REFUTED).index(status)


def _share(outcomes: Iterable[Status]) -> tuple[float, float, float]:
    """Share supported, its standard error, share refuted; the error allows for shares of 0 and 1.

    The error is that of the share with two successes and two failures added. Source: Agresti and Coull, Am. Stat. 52
    (1998).
    """
    counts = Counter(outcomes)
    n, supported = counts.total(), counts[Status.SUPPORTED]
    padded = (supported + 2) / (n + 4)
    return supported / n, math.sqrt(padded * (1 - padded) / (n + 4)), counts[Status.REFUTED] / n


def written_reach(study: Study) -> str:
    """The smallest p of every test of `study`, and what its claims can become, as text."""
    design = design_of(study)
    size = (
        f"{design.examples} examples, {counted(design.seeds, 'seeds')}, {design.trained} trained conditions, "
        f"{design.directions} random directions of a kind; significant at {study.rules.alpha:g}"
    )
    return f"Smallest p of study {study.name} ({size})\n\n{_aligned(_reach_rows(study))}\n"


def written_power(study: Study, variances: Variances, table: pd.DataFrame) -> str:
    """The power of `study` as text, an effect after the other."""
    design = design_of(study)
    parts = [
        f"Power, by {int(table['simulations'].iloc[0])} simulated studies for each number of examples and of seeds; "
        f"variances of study {variances.study} ({variances.examples} examples, {variances.seeds} seeds: those of runs "
        f"rest on {2 * (variances.seeds - 1)} degrees of freedom). Gates are taken to hold. ± is the Monte-Carlo "
        "standard error; the study's own size is marked *.",
    ]
    for effect in dict.fromkeys(table["effect"]):
        parts += [
            f"Effect {in_words(effect, variances, study.rules)}:",
            _aligned(_power_rows(table[table["effect"] == effect], design)),
        ]
    return "\n\n".join(parts) + "\n"


def in_words(effect: str, variances: Variances, rules: Rules) -> str:
    """An effect with its numbers."""
    if effect == OBSERVED:
        shown = [
            f"alignment falls by {variances.fall[1]:.3g} (control: {variances.fall[2]:.3g}) from a neutral "
            f"{variances.alignment:.3g}",
            f"drift by {variances.drift[0] - variances.drift[1]:.3g} (control: "
            f"{variances.drift[0] - variances.drift[2]:.3g}) from {variances.drift[0]:.3g} nats/token",
        ]
    elif effect == OF_INTEREST:
        fall, share = smallest_of_interest(variances, rules)
        shown = [
            f"alignment falls by {fall:.3g} from a neutral {variances.alignment:.3g}, not for loss, and under the "
            "control not at all",
            f"drift by {100 * share:.0f} % of {variances.drift[0]:.3g} nats/token",
        ]
    else:
        shown = ["alignment and drift are the same under every condition"]
    return f"{effect} ({'; '.join(shown)})"


def _reach_rows(study: Study) -> list[list[str]]:
    table = smallest_p_table(study)
    yes = {True: "yes", False: "no"}
    rows = [["claim", "test", "n", "smallest p", "decides", "can be supported", "refuted"]]
    for row in table.itertuples():
        n, least = counted(row.n, row.unit), floor(row.smallest_p)
        can = yes[row.can_be_supported], yes[row.can_be_refuted]
        rows.append([row.claim, row.test, n, least, row.decides, *can])
    return rows


def counted(number: int, units: str) -> str:
    """A number with its unit, which is given in the plural."""
    return f"{number} {units.removesuffix('s') if number == 1 else units}"


def _power_rows(table: pd.DataFrame, design: Design) -> list[list[str]]:
    claims = [*CLAIMS, ALL]
    rows = [["examples", "seeds", *claims]]
    for (examples, seeds), part in table.groupby(["examples", "seeds"]):
        shown = part.set_index("claim")
        cells = [f"{shown.loc[claim, 'power']:.2f} ±{shown.loc[claim, 'error']:.2f}" for claim in claims]
        own = " *" if (examples, seeds) == (design.examples, design.seeds) else ""
        rows.append([str(examples), f"{seeds}{own}", *cells])
    return rows


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns, two blanks apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)
