"""Simulated studies, judged: what became of every gate and claim, and which intervals cover the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from gradinoc.claims.gates import gates_of
from gradinoc.claims.rules.finding import Claim, Finding, Status
from gradinoc.claims.rules.verdict import CLAIMS, conclusion
from gradinoc.power.calibration.cases import Case, truths
from gradinoc.power.calibration.worlds import cases
from gradinoc.power.pool import each
from gradinoc.power.simulate import evidence_of, latent_of
from gradinoc.stats.effect import Effect
from gradinoc.study.rules import Rules

SEED = 20250  # of every table; another gives another draw of the same distribution
PORTION = 10  # studies that a process is handed at a time
ESTIMATE, COVERED = "estimate: ", "covered: "  # prefixes of the columns of an effect with a known truth
NOT_RUN = "not run"  # in place of the status of a claim whose tables a study has not
EVERY = "all claims"  # column: whether every claim that is run is supported, which CONSISTENT and SUPPORTED rest on


def run_studies(
    count: int, chosen: Mapping[str, Case] | None = None, jobs: int = 0, tell: Callable[[int, int], None] | None = None
) -> pd.DataFrame:
    """One row a study, `count` in each case: case, study, the claims' statuses, whether all are supported, verdict,
    gates that failed, and for each effect whose truth is known its estimate less that, and whether its 95 % interval
    covers it (NaN: it has none).

    Each study has a seed of its own, spawned by the case's name and its number: neither `jobs` (processes; 0: one a
    core) nor the choice of cases changes a row. `tell` is called with the studies done and to do.
    """
    wanted = cases() if chosen is None else dict(chosen)
    portions = [
        (name, case, range(start, min(start + PORTION, count)))
        for name, case in wanted.items()
        for start in range(0, count, PORTION)
    ]
    rows: list[dict[str, object]] = []
    for found in each(judge_block, portions, jobs):
        rows += found
        if tell:
            tell(len(rows), count * len(wanted))
    return pd.DataFrame(rows)


def judge_block(portion: tuple[str, Case, range]) -> list[dict[str, object]]:
    """The rows of `run_studies` of some studies of one case: its name, the case, the studies' numbers."""
    name, case, numbers = portion
    return [{"case": name, "study": number, **judge_study(case, study_rng(name, number))} for number in numbers]


def study_rng(name: str, number: int) -> np.random.Generator:
    """The random numbers of one study of a case: a child of `SEED`'s sequence."""
    letters = tuple(name.encode())
    return np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=(*letters, number)))


def judge_study(case: Case, rng: np.random.Generator) -> dict[str, object]:
    """What the rules make of one study of a case: by `verdict.judge`'s own steps, without what only accompanies."""
    rules = Rules()
    latent = latent_of(case.scenario, rng, **vars(case.sizes))
    evidence = evidence_of(latent, rng)
    judged = [claim for claim in CLAIMS if claim.ran(evidence) and (not case.judged or claim.key in case.judged)]
    gates = gates_of(evidence, rules, tuple(key for claim in judged for key in claim.rests_on) if case.judged else ())
    claims = tuple(deciding(claim).judge(evidence, rules, gates) for claim in judged)
    others = [claim for claim in CLAIMS if case.judged and claim not in judged]
    verdict, _ = conclusion(gates, (*claims, *(_granted(claim) for claim in others)), rules)
    row: dict[str, object] = {claim.key: NOT_RUN for claim in CLAIMS}
    row |= {finding.key: str(finding.status) for finding in claims}
    row[EVERY] = all(finding.status is Status.SUPPORTED for finding in claims)
    row |= {"verdict": verdict.name, "failed": " ".join(gate.key for gate in gates if gate.status != "supported")}
    effects = {f"{finding.key}.{effect.key}": effect for finding in (*gates, *claims) for effect in finding.effects}
    known = {key: truth for key, truth in truths(case, latent).items() if key in effects}
    return row | covers({key: effects[key] for key in known}, known)


def _granted(claim: Claim) -> Finding:
    """A claim as if it were supported."""
    return Finding(claim.key, claim.text, Status.SUPPORTED, "", "Not judged.")


def deciding(claim: Claim) -> Claim:
    """The claim without the effects that only accompany those that decide."""
    return replace(claim, measure=partial(claim.measure, secondary=False))


def covers(effects: Mapping[str, Effect], known: Mapping[str, float]) -> dict[str, object]:
    """Columns of a row: each effect's estimate less what is `known`, and 1 where its interval covers that, else 0."""
    row: dict[str, object] = {}
    for name, effect in effects.items():
        told = np.isfinite(effect.low)
        row[f"{ESTIMATE}{name}"] = effect.estimate - known[name]
        row[f"{COVERED}{name}"] = float(effect.low <= known[name] <= effect.high) if told else np.nan
    return row
