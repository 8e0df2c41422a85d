"""C3: loss does not explain why alignment falls."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from gradinoc.claims.criteria import Criterion, above_zero, at_least, equivalent
from gradinoc.claims.finding import Claim, Measured, Outcome, refuted, supported, undecided
from gradinoc.claims.gates import ON_DIRECTION
from gradinoc.claims.measures import (
    COMPARED,
    cosine_change,
    cosine_margin,
    example_groups,
    inoculation_contrast,
    matched_checkpoint,
    per_example,
)
from gradinoc.claims.tables import Evidence
from gradinoc.stats.clustered import grouped_pairs
from gradinoc.stats.effect import Effect, at_level, bare, overlap, tost
from gradinoc.stats.equal_loss import Paired, ancova, binned, raw_contrast, within_example
from gradinoc.study.prompts import INOCULATION, LOSS_MATCHED, NEUTRAL
from gradinoc.study.rules import Rules

CORE = (NEUTRAL, INOCULATION, LOSS_MATCHED)
ADJUSTED = ("regression", "bins", "within")  # keys of the ways to make losses equal


def loss_gaps(losses: pd.Series) -> pd.Series:
    """By condition, how far its mean loss is from inoculation's, as a share of neutral's distance; infinite if none."""
    distance = abs(losses[NEUTRAL] - losses[INOCULATION])
    if distance == 0:
        return pd.Series(math.inf, losses.index)
    gaps: pd.Series = abs(losses - losses[INOCULATION]) / distance
    return gaps


def loss_audit(evidence: Evidence, rules: Rules, control: str = LOSS_MATCHED) -> tuple[Effect, str]:
    """The control's distance from inoculation's loss as a share of neutral's distance, and that in words."""
    mean = per_example(evidence, "loss").mean()
    miss, distance = mean[control] - mean[INOCULATION], mean[NEUTRAL] - mean[INOCULATION]
    share = float(loss_gaps(mean)[control])
    verdict = "loss-matched" if share <= rules.loss_match else "not loss-matched"
    words = (
        f"The {control} control is {verdict}: its loss is {miss:+.3g} nats/token from inoculation's, "
        f"{100 * share:.0f} % of neutral's {distance:+.3g} (at most {100 * rules.loss_match:g} % allowed)."
    )
    examples = evidence.alignments["example"].nunique()
    name = f"loss gap of {control}, share of neutral's"
    return bare(name, share, examples, "examples", "ratio of mean gaps"), words


def paired_with_loss(evidence: Evidence, other: str) -> Paired:
    """Alignment and loss of every example under `other` and under inoculation."""
    columns = [other, INOCULATION]
    alignment, loss = per_example(evidence)[columns], per_example(evidence, "loss")[columns]
    return Paired(
        alignment.to_numpy(dtype=np.float64),
        loss.to_numpy(dtype=np.float64),
        example_groups(evidence, "alignments", alignment.index),
    )


def matched_controls(evidence: Evidence, rules: Rules) -> dict[str, Effect]:
    """Alignment, control - inoculation, for each further control whose loss is inoculation's (see `loss_audit`).

    Of the conditions beside neutral, inoculation and loss_matched, those within `rules.loss_match` on the measured
    examples: equal loss by design, without a model of how alignment goes with loss.
    """
    further = [name for name in evidence.conditions if name not in CORE]
    matched = [name for name in further if loss_audit(evidence, rules, name)[0].estimate <= rules.loss_match]
    return {f"alignment.{name}": inoculation_contrast(evidence, rules, name) for name in matched}


def matched_checkpoints(evidence: Evidence, rules: Rules) -> dict[str, Effect]:
    """Alignment at neutral checkpoints of inoculation's first loss, minus inoculation's on the base model.

    Paired by example, the mean over seeds and then each seed; and the loss that is left between them. Equal loss
    reached by training in place of a prompt; secondary. Empty where it was not measured.
    """
    if evidence.matched.empty:
        return {}
    reached = matched_checkpoint(evidence)
    base = {column: per_example(evidence, column)[INOCULATION] for column in COMPARED}
    groups = example_groups(evidence, "alignments", base["loss"].index)
    parts = {"checkpoint": ("mean over seeds", reached.groupby("example").mean())}
    parts |= {f"checkpoint.seed_{seed}": (f"seed {seed}", reached.loc[seed]) for seed in evidence.seeds}

    def compare(column: str, name: str, rows: pd.DataFrame) -> Effect:
        both = rows[column].reindex(base[column].index), base[column]
        return grouped_pairs(*both, groups, f"{name}, neutral checkpoint - inoculation", 1 - rules.alpha)

    effects = {
        key: compare("alignment", f"alignment at equal loss, {part}", rows) for key, (part, rows) in parts.items()
    }
    return {**effects, "checkpoint.loss": compare("loss", "loss left at equal loss", parts["checkpoint"][1])}


def measure(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """The fall of loss and gradient norm, and alignment at equal loss by every way of making losses equal.

    These are regression (ANCOVA) and bins inside the common range of losses, and regression of differences
    within examples. The first two compare different examples at equal loss, and so also whatever else makes
    examples hard; the third cannot be misled so, and without it an effect that is all loss could pass (see
    `stats.equal_loss`). A further control that is loss-matched has to agree (see `matched_controls`); neutral
    checkpoints at inoculation's first loss are secondary. Without enough overlap of losses, or where alignment did not
    change while loss fell, nothing is compared at equal loss.
    """
    losses, norms = per_example(evidence, "loss"), per_example(evidence, "grad_norm")
    groups = example_groups(evidence, "alignments", losses.index)
    effects = {
        key: grouped_pairs(
            frame[NEUTRAL], frame[INOCULATION], groups, f"{name}, neutral - inoculation", 1 - rules.alpha
        )
        for key, name, frame in (("loss", "loss", losses), ("grad_norm", "gradient norm", norms))
    }
    shared = overlap(losses[NEUTRAL], losses[INOCULATION])
    effects["equivalence"] = cosine_change(evidence, rules)
    name = "overlap of losses, neutral and inoculation"
    effects["overlap"] = bare(name, shared, len(losses), "examples", "overlap coefficient")
    audit, words = loss_audit(evidence, rules)
    effects["loss_gap.loss_matched"] = audit
    further = [control for control in evidence.conditions if control not in CORE]
    effects |= {f"loss_gap.{control}": loss_audit(evidence, rules, control)[0] for control in further}
    controls = matched_controls(evidence, rules)
    checkpoints = matched_checkpoints(evidence, rules) if secondary else {}
    effects |= controls | checkpoints
    facts = {"margin": cosine_margin(evidence, rules)}
    statement = f"{words} The losses of neutral and inoculation overlap by {shared:.2f}"
    if loss_fell_alone(Measured(effects, facts=facts), rules)[0]:
        return Measured(effects, f"{statement}; alignment changes by {effects['equivalence']}.", facts)
    pairs = paired_with_loss(evidence, NEUTRAL)
    if shared < rules.overlap or not pairs.common.any(axis=0).all():
        return Measured(effects, f"{statement}.", facts)
    raw, adjusted = adjusted_contrasts(pairs, rules)
    kept = adjusted["regression"].estimate / raw.estimate if raw.estimate != 0 else math.nan
    share = bare("share of the effect kept at equal loss", kept, raw.n, raw.unit, "regression / condition alone")
    regression, bins, within = adjusted.values()
    statement += (
        f". Among losses that both reach, alignment differs by {raw}; at equal loss by {regression} in the "
        f"regression, by {bins} in bins, by {within} within examples: {100 * kept:.0f} % is kept."
    )
    beside = [*controls.values(), *list(checkpoints.values())[:1]]
    statement += "".join(f" Beside it, {effect.name}: {effect}." for effect in beside)
    return Measured({**effects, "common": raw, **adjusted, "kept": share}, statement, facts)


def loss_fell_alone(found: Measured, rules: Rules) -> tuple[bool, tuple[Criterion, ...]]:
    """Whether alignment is equivalent to unchanged while loss or gradient norm fall; and the criteria of that.

    A fall of alignment that is small, but whose interval lies above zero, is a fall.
    """
    contrast = replace(at_level(found["equivalence"], 1 - rules.alpha), name="alignment, neutral - inoculation")
    same, falls = equivalent(contrast, found.facts["margin"], rules.alpha), above_zero(contrast)
    lower = [above_zero(found[key]) for key in ("loss", "grad_norm")]
    return bool(same) and not falls and any(lower), (same, falls, *lower)


def decide(found: Measured, rules: Rules) -> Outcome:
    """Supported if at equal loss every interval is above zero; undecided where losses overlap too little.

    Refuted in two ways. The cosine is equivalent to unchanged (TOST, margin `rules.equivalence` of the
    neutral alignment) and not shown to fall, while loss or gradient norm fall. Or there is an effect inside
    the common range, which at equal loss is equivalent to zero (TOST on the ANCOVA, margin
    `rules.null_margin` of the effect), and the regression within examples does not say otherwise.
    """
    alone, criteria = loss_fell_alone(found, rules)
    if alone:
        return refuted(
            "Loss or gradient norm fall under inoculation while the cosine is equivalent to unchanged "
            f"(within {100 * rules.equivalence:g} % of the neutral alignment, p {found['equivalence'].p:.2g}); "
            "a larger change of the cosine would have been compared at equal loss.",
            *criteria,
        )
    shared = at_least(found["overlap"], rules.overlap)
    if "common" not in found:
        return undecided(
            f"Undecided because the losses overlap by less than {rules.overlap:g}: equal losses are hardly observed.",
            shared,
        )
    raw, regression = found["common"], found["regression"]
    controls = [key for key in found.effects if key.startswith("alignment.")]
    effect = above_zero(raw)
    adjusted = {key: above_zero(found[key]) for key in (*ADJUSTED, *controls)}
    if not effect:
        return undecided(
            "Undecided because among common losses no fall of alignment is shown that loss could explain.",
            shared, effect, *adjusted.values(),
        )  # fmt: skip
    gone = equivalent(regression, rules.null_margin * raw.estimate, rules.alpha)
    criteria = (shared, effect, *adjusted.values(), gone)
    if all(adjusted.values()):
        return supported(
            "At equal loss every interval lies above zero; one that reached zero would have left it undecided.",
            *criteria,
        )
    if gone and not adjusted["within"]:
        p = tost(regression, rules.null_margin * raw.estimate, rules.alpha).p
        return refuted(
            f"At equal loss the effect is equivalent to zero (within {100 * rules.null_margin:g} % of it, "
            f"p {p:.2g}): loss explains it. Intervals above zero would have supported the claim.",
            *criteria,
        )
    short = [found[key].name for key, criterion in adjusted.items() if not criterion]
    return undecided(f"Undecided because the interval is not above zero for {', '.join(short)}.", *criteria)


def adjusted_contrasts(pairs: Paired, rules: Rules) -> tuple[Effect, dict[str, Effect]]:
    """Alignment, neutral - inoculation, on common losses; and the same at equal loss, in three ways."""
    raw = raw_contrast(pairs, "alignment, neutral - inoculation, common losses")
    adjusted = {
        "regression": ancova(pairs, "alignment at equal loss, regression"),
        "bins": binned(pairs, "alignment at equal loss, bins", rules.bins),
        "within": within_example(pairs, "alignment at equal loss, within examples"),
    }
    level = 1 - rules.alpha
    return at_level(raw, level), {key: at_level(effect, level) for key, effect in adjusted.items()}


C3 = Claim(
    "C3",
    "Loss does not explain it.",
    measure,
    decide,
    ON_DIRECTION,
    "Supported if alignment, neutral minus inoculation, lies above zero among common losses and at equal loss, "
    "by regression, in bins, within examples, and against every further control whose loss is inoculation's "
    "(within {match} of neutral's distance). Refuted if the effect is equivalent to zero at equal loss (within "
    "{margin} of it) and not shown within examples, or if alignment is equivalent to unchanged (within "
    "{equivalence}) and not shown to fall, while loss or gradient norm fall. Otherwise, and where losses overlap "
    "by less than {overlap}, undecided.",
    headline="regression",
)
