"""How often a study of a given size would pass each gate and support each claim, by simulated studies; what to buy.

Every simulated study is judged by the gates' and claims' own rules. Claims are judged as if their gates held: a gate
stands by itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from gradinoc.claims.gates import GATES
from gradinoc.claims.rules.finding import Claim, Status
from gradinoc.claims.rules.verdict import CLAIMS as JUDGED
from gradinoc.power.pool import each
from gradinoc.power.prospects import scenario_of, sizes_of
from gradinoc.power.scenarios import SOURCES, Scenario, Sizes
from gradinoc.power.simulate import simulate
from gradinoc.power.variances import Variances
from gradinoc.study.description import Study
from gradinoc.study.rules import Rules

SIMULATIONS = 40
SEED = 0  # of every simulated study; each has a child of its own
PORTION = 5  # simulated studies that a process is handed at a time
SIZED = ("G3", "G5", "G7", "G8b", "G8c", "G9")  # gates that rest on prompts, seeds or questions
# What a past study's variances say something of; where drift comes from is not simulated from them.
PLANNED: tuple[Claim, ...] = tuple(claim for claim in JUDGED if claim.key not in SOURCES)
TESTS: tuple[Claim, ...] = (*(gate for gate in GATES if gate.key in SIZED), *PLANNED)
ALL = "all claims"
ON_RUNS = ("C4", "C6")  # claims that more runs can help
OWN, PROMPTS, SEEDS, QUESTIONS = "as planned", "prompts", "seeds", "questions"
PAIRS, MORE_SEEDS = (
    3,
    2,
)  # six runs either way: a harmless and an inoculating prompt each, or the plan's three conditions
RUNS = 2 * PAIRS
COLUMNS = ("effect", "axis", "prompts", "seeds", "questions", "key", "power", "error", "refuted", "simulations")


@dataclass(frozen=True)
class Plan:
    """A study of one size to be simulated: what is varied (`axis`), and its sizes."""

    axis: str
    sizes: Sizes

    @property
    def prompts(self) -> int:
        """Prompts trained of the smaller of the two families."""
        return min(self.sizes.trained[:2])


@dataclass(frozen=True)
class Cell:
    """A plan to be simulated under an effect."""

    effect: str
    plan: Plan
    scenario: Scenario
    rules: Rules


Outcomes = tuple[Status, ...]  # of each of `TESTS`


def plans_of(study: Study) -> list[Plan]:
    """The study's own size, and fewer and more prompts, seeds and questions, one at a time.

    `PAIRS` more prompts of each family take as many runs as `MORE_SEEDS` more seeds of the plan's three conditions.
    """
    own = sizes_of(study)
    found = [Plan(OWN, own)]
    for more in (-PAIRS, PAIRS):
        inoculating, harmless, opposite = own.trained
        trained = (_changed(inoculating, more), _changed(harmless, more), opposite)
        looked = max(own.inoculating, trained[0]), max(own.harmless, trained[1])  # what is trained is measured too
        found.append(Plan(PROMPTS, replace(own, trained=trained, inoculating=looked[0], harmless=looked[1])))
    found += [Plan(SEEDS, replace(own, seeds=_changed(own.seeds, more))) for more in (-1, MORE_SEEDS)]
    found += [Plan(QUESTIONS, _asked(own, factor)) for factor in (0.5, 2.0)]
    return [plan for place, plan in enumerate(found) if plan.sizes not in [each.sizes for each in found[:place]]]


def _changed(count: int, more: int) -> int:
    """So many more, or fewer; never so few that they have no interval, and never more where fewer were asked for."""
    return max(count + more, min(count, 2))


def _asked(sizes: Sizes, factor: float) -> Sizes:
    """The same study with so many times the questions."""
    fields = ("examples", "shared", "elicitation", "behaviour", "evaluation")
    return replace(sizes, **{field: max(8, round(factor * getattr(sizes, field))) for field in fields})


def power(
    study: Study,
    variances: Variances,
    effects: Sequence[str],
    simulations: int = SIMULATIONS,
    jobs: int = 0,
    tell: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """One row an effect x plan x gate or claim: the share of simulated studies in which it holds or is supported.

    Columns are `COLUMNS`: `axis` says what differs from the study's own size, `prompts` are those trained of a family,
    `questions` those that every run answers; `power` with its Monte-Carlo standard `error`, and the share `refuted`.
    Each simulated study has its own child of `SEED`'s sequence, so neither `jobs` (processes; 0: one a core) nor other
    plans change a number. `tell` is called with simulated studies done and to do.
    """
    plans = plans_of(study)
    cells = [
        Cell(effect, plan, scenario_of(variances, effect, study), study.rules) for effect in effects for plan in plans
    ]
    portions = [
        (cell, range(start, min(start + PORTION, simulations)))
        for cell in cells
        for start in range(0, simulations, PORTION)
    ]
    found: dict[int, list[Outcomes]] = {}
    done = 0
    for (cell, _), outcomes in zip(portions, each(_judged, portions, jobs), strict=True):
        found.setdefault(cells.index(cell), []).extend(outcomes)
        done += len(outcomes)
        if tell:
            tell(done, simulations * len(cells))
    rows = []
    for place, cell in enumerate(cells):
        sizes = cell.plan.sizes
        for key, (share, error, refuted) in shares(found[place]).items():
            keys = (cell.effect, cell.plan.axis, cell.plan.prompts, sizes.seeds, sizes.evaluation, key)
            rows.append((*keys, share, error, refuted, simulations))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _judged(portion: tuple[Cell, range]) -> list[Outcomes]:
    cell, numbers = portion
    return [judge_plan(cell, _rng(cell, number)) for number in numbers]


def _rng(cell: Cell, number: int) -> np.random.Generator:
    """The random numbers of one simulated study: a child of `SEED`'s sequence, of the cell's sizes and its number."""
    sizes = cell.plan.sizes
    key = (*cell.effect.encode(), *sizes.trained, sizes.seeds, sizes.evaluation, number)
    return np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=key))


def judge_plan(cell: Cell, rng: np.random.Generator) -> Outcomes:
    """What becomes of each of `TESTS` in one simulated study."""
    evidence = simulate(cell.scenario, rng, **vars(cell.plan.sizes))
    rules = cell.rules
    return tuple(test.decide(test.measure(evidence, rules, secondary=False), rules).status for test in TESTS)


def shares(outcomes: Sequence[Outcomes]) -> dict[str, tuple[float, float, float]]:
    """Gate, claim, and all claims together -> share supported, its standard error, share refuted."""
    keys = [test.key for test in TESTS]
    found = {key: _share(column) for key, column in zip(keys, zip(*outcomes, strict=True), strict=True)}
    claims = len(PLANNED)
    return found | {ALL: _share(max(study[-claims:], key=_weight) for study in outcomes)}


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


def recommendation(table: pd.DataFrame, effect: str) -> str:
    """What six more runs are best spent on, in a sentence with the numbers of the claims that runs decide.

    Prompts or seeds, whichever raises the sum of their powers by more; neither is said to be better where the
    difference is within two Monte-Carlo standard errors.
    """
    rows = table[(table["effect"] == effect) & table["key"].isin(ON_RUNS)]
    own = rows[rows["axis"] == OWN].set_index("key")
    more = {
        axis: rows[(rows["axis"] == axis) & (rows[axis] > own[axis].iloc[0])].set_index("key")
        for axis in (PROMPTS, SEEDS)
    }
    gains = {axis: float((after["power"] - own["power"]).sum()) for axis, after in more.items()}
    error = 2 * math.sqrt(sum(float((after["error"] ** 2).sum()) for after in more.values()))
    apart = gains[PROMPTS] - gains[SEEDS]
    best = PROMPTS if apart > 0 else SEEDS
    if abs(apart) <= error:
        advice = f"{RUNS} more runs: {own['simulations'].iloc[0]} simulated studies do not tell which buys more"
    else:
        advice = f"{RUNS} more runs: train more {best} rather than {SEEDS if best == PROMPTS else PROMPTS}"
    bought = {PROMPTS: f"{PAIRS} more harmless and {PAIRS} more inoculating prompts", SEEDS: f"{MORE_SEEDS} more seeds"}
    return f"{advice}. " + "; ".join(_bought(bought[axis], own, more[axis]) for axis in (PROMPTS, SEEDS)) + "."


def _bought(what: str, own: pd.DataFrame, more: pd.DataFrame) -> str:
    """`3 more ... take C4 from 0.40 to 0.55 and C6 from 0.70 to 0.92`."""
    steps = [f"{key} from {own.loc[key, 'power']:.2f} to {more.loc[key, 'power']:.2f}" for key in ON_RUNS]
    return f"{what} take {' and '.join(steps)} (± {more['error'].max():.2f})"
