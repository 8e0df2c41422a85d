"""Simulated studies, judged: what became of every claim, and which intervals cover the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from gradinoc.claims.c3 import adjusted_contrasts, paired_with_loss
from gradinoc.claims.gates import gates_of
from gradinoc.claims.tables import Evidence
from gradinoc.claims.verdict import CLAIMS, conclusion
from gradinoc.power.calibration.cases import Case, cases, truths
from gradinoc.power.pool import each
from gradinoc.power.simulate import simulate
from gradinoc.stats.effect import Effect
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules

SEED = 20250  # of every table; another gives another draw of the same distribution
PORTION = 20  # studies that a process is handed at a time
ESTIMATE, COVERED = "estimate: ", "covered: "  # prefixes of the columns of an effect with a known truth


def run_studies(
    count: int, chosen: Mapping[str, Case] | None = None, jobs: int = 0, tell: Callable[[int, int], None] | None = None
) -> pd.DataFrame:
    """One row a study, `count` in each case: case, study, C1 to C4, verdict, and for each effect whose truth is known
    its estimate and whether its 95 % interval covers the truth.

    Each study has a seed of its own, spawned by the case's name and its number: neither `jobs` (processes; 0: one a
    core) nor the choice of cases changes a row. `tell` hears of studies done and to do.
    """
    wanted = cases() if chosen is None else dict(chosen)
    portions = [
        (name, case, range(start, min(start + PORTION, count)))
        for name, case in wanted.items()
        for start in range(0, count, PORTION)
    ]
    rows: list[dict[str, object]] = []
    for found in each(_judged, portions, jobs):
        rows += found
        if tell:
            tell(len(rows), count * len(wanted))
    return pd.DataFrame(rows)


def _judged(portion: tuple[str, Case, range]) -> list[dict[str, object]]:
    name, case, numbers = portion
    return [{"case": name, "study": number, **judge_study(case, study_rng(name, number))} for number in numbers]


def study_rng(name: str, number: int) -> np.random.Generator:
    """The random numbers of one study of a case: a child of `SEED`'s sequence."""
    letters = tuple(name.encode())
    return np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=(*letters, number)))


def judge_study(case: Case, rng: np.random.Generator) -> dict[str, object]:
    """What the judge makes of one study of a case: by `verdict.judge`'s own steps, without the warnings."""
    rules, evidence = Rules(), simulate(case.scenario, rng, **vars(case.sizes))
    gates = gates_of(evidence, rules)
    claims = tuple(claim.judge(evidence, rules, gates) for claim in CLAIMS)
    verdict, _ = conclusion(rules, gates, claims)
    row: dict[str, object] = {finding.key: str(finding.status) for finding in claims}
    row |= {"verdict": verdict.name, "failed": " ".join(gate.key for gate in gates if gate.status != "supported")}
    known = truths(case)
    effects = {f"{finding.key}.{effect.key}": effect for finding in claims for effect in finding.effects}
    effects |= {f"C3.{key}": effect for key, effect in adjusted_effects(evidence, rules).items()}
    return row | covers({key: effects[key] for key in known}, known)


def adjusted_effects(evidence: Evidence, rules: Rules) -> dict[str, Effect]:
    """C3's effects at equal loss, in every study: the claim itself skips them where alignment did not change.

    Intervals of those studies alone that show a change would not cover the truth, as every selection by outcome.
    """
    return adjusted_contrasts(paired_with_loss(evidence, NEUTRAL), rules)[1]


def covers(effects: Mapping[str, Effect], known: Mapping[str, float]) -> dict[str, object]:
    """Columns of a row: each effect's estimate, and 1 where its interval covers what is `known`, else 0."""
    row: dict[str, object] = {}
    for name, effect in effects.items():
        row[f"{ESTIMATE}{name}"] = effect.estimate
        row[f"{COVERED}{name}"] = float(effect.low <= known[name] <= effect.high)
    return row
