"""What varies by chance in a study that was run, and how large its effects were: what a plan of the next one rests on.

Every estimator is a method of moments: mean squares are set equal to what they are expected to be, and a variance that
would come out negative is 0. Cosines are means over the band at the primary position.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy import optimize

from gradinoc.claims.measures import (
    drift_by_example,
    early_alignment,
    example_groups,
    null_contrasts,
    per_example,
    unrelated_contrasts,
)
from gradinoc.claims.tables import Evidence
from gradinoc.power.simulate import CONDITIONS
from gradinoc.stats.clustered import Groups
from gradinoc.stats.effect import Array, finite
from gradinoc.study.description import NULLS
from gradinoc.study.loading import STUDIES
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules

Three = tuple[float, float, float]
TINY = STUDIES / "tiny-variances.json"  # of the study `tiny`, for plans without a past study of their own


class Variances(BaseModel):
    """Variances and effects of a study, in its own units; by condition in `CONDITIONS`' order.

    Attributes:
        study: whose evidence.
        examples: measured on the frozen model.
        templates: how many the source of the examples has (see `templates_behind`); 0 if each stands by itself.
        seeds: runs of each condition.
        alignment: mean of the neutral condition on the frozen model, cosine.
        fall: neutral alignment minus each condition's on the frozen model, cosine.
        early_fall: the same in training, over the early steps.
        loss_fall: neutral loss minus each condition's, nats/token.
        slope: alignment that goes with a nat/token of loss within examples.
        between: alignment that goes with a nat/token of an example's difficulty, beyond `slope`.
        difficulty: sd of an example's loss, alike under every condition, nats/token.
        loss: sd of its loss under one condition, nats/token.
        example: sd of its alignment, alike under every condition.
        own: sd of its alignment under each condition.
        template: sd of a template's alignment under one condition, as its contrasts with inoculation show it.
        nulls: of each kind of random direction, root mean square of T(u) over directions, neutral - inoculation.
        unrelated: T(u) of the unrelated trait, or its reverse, that T(v) leads by the fewest standard errors.
        unrelated_slope: what an example's difference along it follows of the one along the trait.
        unrelated_example: sd of an example's difference along it beyond that.
        step: sd of the alignment of one early training example under one condition.
        seed: sd of a seed's early alignment.
        run: sd of a run's early alignment beyond its seed's and its examples'.
        early_examples: training examples over which a run's early alignment is a mean.
        drift: mean rise of the log-odds, nats/token.
        run_drift: sd of a run's rise beyond its seed's and its answers', nats/token.
        response: sd of one answer's rise in one run, nats/token.
        evaluation: answers over which a run's rise is a mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    study: str
    examples: int
    templates: int
    seeds: int
    alignment: float
    fall: Three
    early_fall: Three
    loss_fall: Three
    slope: float
    between: float
    difficulty: float
    loss: float
    example: float
    own: Three
    template: float
    nulls: dict[str, float]
    unrelated: float
    unrelated_slope: float
    unrelated_example: float
    step: float
    seed: float
    run: float
    early_examples: int
    drift: Three
    run_drift: float
    response: float
    evaluation: int


def estimate(evidence: Evidence, rules: Rules, study: str) -> Variances:
    """The variances and effects that `evidence` of `study` shows.

    Raises:
        ValueError: fewer than two seeds, diverged runs, or a table that is missing.
    """
    if len(evidence.seeds) < 2:
        raise ValueError(f"variances of {study}: one seed says nothing of how runs differ; two or more are needed")
    return Variances(
        study=study,
        seeds=len(evidence.seeds),
        **_of_examples(evidence),
        **_of_directions(evidence),
        **_of_runs(evidence, rules),
        **_of_drift(evidence),
    )


def _of_examples(evidence: Evidence) -> dict[str, Any]:
    """Losses and alignments on the frozen model.

    With residuals of examples x conditions (both means taken out): `slope` is the regression of those of alignment on
    those of loss, `loss` the root of their mean square. Means over conditions give `difficulty` (variance less its
    share of `loss`) and, by their covariance, `between`. Of each pair of conditions the difference of alignment less
    slope x loss has, by analysis of variance, a part between templates, 2 template^2, and one within them, own_a^2 +
    own_b^2; three pairs give the three `own`, the two with inoculation, which decide, `template`.
    """
    names = list(CONDITIONS)
    alignment, loss = (per_example(evidence, column)[names] for column in ("alignment", "loss"))
    values, losses = alignment.to_numpy(dtype=np.float64), loss.to_numpy(dtype=np.float64)
    groups = example_groups(evidence, "alignments", alignment.index)
    examples, conditions = values.shape
    residuals, spread = _interaction(values), _interaction(losses)
    squares = float(np.sum(spread**2))
    slope = float(np.sum(residuals * spread)) / squares if squares > 0 else 0.0
    own_loss = squares / ((examples - 1) * (conditions - 1))
    levels = losses.mean(axis=1)
    difficulty = max(0.0, float(levels.var(ddof=1)) - own_loss / conditions)
    shared = float(np.cov(values.mean(axis=1), levels)[0, 1]) - slope * float(levels.var(ddof=1))
    between = shared / difficulty if difficulty > 0 else 0.0
    rest = values - slope * losses
    parts = [_nested(rest[:, a] - rest[:, b], groups) for a, b in ((0, 1), (1, 2), (0, 2))]
    (first, second, third), by_template = (np.array(part) for part in zip(*parts, strict=True))
    own = [max(0.0, each / 2) for each in (first + third - second, first + second - third, second + third - first)]
    template = float(np.mean(by_template[:2])) / 2
    example = float(rest.mean(axis=1).var(ddof=1)) - between**2 * difficulty
    example -= sum(own) / conditions**2 + template / conditions
    mean, cost = values.mean(axis=0), losses.mean(axis=0)
    return {
        "examples": examples,
        "templates": templates_behind(examples, examples if groups is None else int(groups.max()) + 1),
        "alignment": float(mean[0]),
        "fall": tuple(mean[0] - mean),
        "loss_fall": tuple(cost[0] - cost),
        "slope": slope,
        "between": between,
        "difficulty": math.sqrt(difficulty),
        "loss": math.sqrt(own_loss),
        "example": math.sqrt(max(0.0, example)),
        "own": tuple(map(math.sqrt, own)),
        "template": math.sqrt(template),
    }


def _of_directions(evidence: Evidence) -> dict[str, Any]:
    """T(u) of directions without the trait, neutral - inoculation.

    Random ones have a mean of zero by their making: root mean squares. Differences along the closest unrelated trait
    are regressed on those along the trait, example by example: what both share leaves T(v)'s lead alone.
    """
    if evidence.unrelated.empty:
        raise ValueError("Evidence table 'unrelated': expected unrelated traits, received none; measure the study anew")
    sizes = {name: math.sqrt(float(np.mean(null_contrasts(evidence, name, NEUTRAL) ** 2))) for name in NULLS}
    alignment = per_example(evidence)
    trait = (alignment[NEUTRAL] - alignment[INOCULATION]).to_numpy(dtype=np.float64)
    differences = unrelated_contrasts(evidence, NEUTRAL).loc[alignment.index].to_numpy(dtype=np.float64)
    either = np.hstack([differences, -differences])
    leads = trait[:, None] - either
    closest = either[:, int(np.argmin(leads.mean(axis=0) / leads.std(axis=0, ddof=1)))]
    slope = float(np.cov(trait, closest)[0, 1] / trait.var(ddof=1))
    return {
        "nulls": sizes,
        "unrelated": float(closest.mean()),
        "unrelated_slope": slope,
        "unrelated_example": float((closest - slope * trait).std(ddof=2)),
    }


def _of_runs(evidence: Evidence, rules: Rules) -> dict[str, Any]:
    """Early alignment of seeds x conditions: two-way analysis of variance, less what a run's own examples add."""
    early = early_alignment(evidence, rules.early_fraction)[list(CONDITIONS)].to_numpy(dtype=np.float64)
    step, examples = _early_examples(evidence, rules)
    seeds, conditions = early.shape
    residual = float(np.sum(_interaction(early) ** 2)) / ((seeds - 1) * (conditions - 1))
    between = float(early.mean(axis=1).var(ddof=1)) - residual / conditions
    mean = early.mean(axis=0)
    return {
        "early_fall": tuple(mean[0] - mean),
        "step": math.sqrt(step),
        "early_examples": examples,
        "seed": math.sqrt(max(0.0, between)),
        "run": math.sqrt(max(0.0, residual - step / examples)),
    }


def _early_examples(evidence: Evidence, rules: Rules) -> tuple[float, int]:
    """The variance of one early training example's alignment in one run, and how many a run has.

    The same examples were met under every condition: residual mean square of examples x conditions, seed by seed.
    """
    rows = evidence.training
    rows = rows[rows["layer"].isin(evidence.band) & (rows["position"] == evidence.primary_position)]
    early = rows["step"] < max(1, math.ceil(rules.early_fraction * (rows["step"].max() + 1) - 1e-9))
    values = rows[early].pivot_table(index=["seed", "step", "example"], columns="condition", values="alignment")
    squares, df = 0.0, 0
    for _, run in values[list(CONDITIONS)].groupby("seed"):
        cells = finite(run.to_numpy(), "Evidence table 'training', alignment in early steps")
        squares += float(np.sum(_interaction(cells) ** 2))
        df += (len(cells) - 1) * (cells.shape[1] - 1)
    return squares / df if df else 0.0, len(values) // len(evidence.seeds)


def _of_drift(evidence: Evidence) -> dict[str, Any]:
    """Rise of the log-odds, seeds x conditions x answers.

    `response` is the root of the residual mean square of runs x answers, `run_drift` that of seeds x conditions less
    what the answers add. What a run's alignment adds to its drift within conditions stays in `run_drift`: nine runs do
    not tell it apart.
    """
    rises = drift_by_example(evidence, "log_odds")[list(CONDITIONS)]
    cells = np.stack([rises.loc[seed].to_numpy(dtype=np.float64) for seed in evidence.seeds])  # (seeds, answers, 3)
    seeds, answers, conditions = cells.shape
    runs = cells.transpose(1, 0, 2).reshape(answers, -1)
    response = float(np.sum(_interaction(runs) ** 2)) / ((answers - 1) * (runs.shape[1] - 1))
    means = cells.mean(axis=1)
    residual = float(np.sum(_interaction(means) ** 2)) / ((seeds - 1) * (conditions - 1))
    return {
        "drift": tuple(means.mean(axis=0)),
        "run_drift": math.sqrt(max(0.0, residual - response / answers)),
        "response": math.sqrt(response),
        "evaluation": answers,
    }


def _interaction(table: Array) -> Array:
    """`table` [rows, columns] less the means of its rows and columns."""
    rest: Array = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    return rest


def _nested(values: Array, groups: Groups) -> tuple[float, float]:
    """The variance of `values` within groups, and that of the groups: one-way analysis of variance, unequal sizes.

    Source: Searle, Casella and McCulloch, Variance Components (1992), section 3.6.
    """
    if groups is None:
        return float(values.var(ddof=1)), 0.0
    sizes = np.bincount(groups)
    n, count = len(values), len(sizes)
    means = np.bincount(groups, values) / sizes
    within = float(np.sum((values - means[groups]) ** 2)) / (n - count)
    among = float(sizes @ (means - values.mean()) ** 2) / (count - 1) if count > 1 else within
    typical = (n - float(sizes @ sizes) / n) / max(1, count - 1)
    variance = (among - within) / typical if typical > 0 else 0.0
    return (within, variance) if variance > 0 else (float(values.var(ddof=1)), 0.0)


def templates_behind(examples: int, met: int) -> int:
    """How many equally likely templates a source has, if so many `examples` came from `met`; 0 where none repeats."""
    if met >= examples:
        return 0
    if met <= 1:
        return 1
    return round(float(optimize.brentq(lambda count: templates_met(count, examples) - met, met, 1e7 * met)))


def templates_met(templates: float, examples: int) -> float:
    """From how many of `templates` equally likely ones so many `examples` come, on average."""
    return -templates * math.expm1(examples * math.log1p(-1 / templates)) if templates > 1 else templates


def load_variances(path: Path) -> Variances:
    """The variances in a file that `Variances.model_dump_json` wrote.

    Raises:
        ValueError: not such a file.
        OSError: it cannot be read.
    """
    return Variances.model_validate(json.loads(path.read_text(encoding="utf-8")))
