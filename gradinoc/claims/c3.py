"""C3: loss does not explain why alignment falls."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from gradinoc.claims.c1 import Outcome, conclude, cosine_change, inoculation_contrast, shows_no_change
from gradinoc.claims.gates import Finding, Status
from gradinoc.claims.measures import COMPARED, example_groups, matched_checkpoint, paired_with_loss, per_example
from gradinoc.claims.tables import Evidence
from gradinoc.stats.clustered import grouped_pairs
from gradinoc.stats.effect import Effect, at_level, bare, overlap, tost
from gradinoc.stats.equal_loss import Paired, ancova, binned, raw_contrast, within_example
from gradinoc.study.prompts import INOCULATION, LOSS_MATCHED, NEUTRAL
from gradinoc.study.rules import Rules

THE_PLANS = (NEUTRAL, INOCULATION, LOSS_MATCHED)


def loss_audit(evidence: Evidence, rules: Rules, control: str = LOSS_MATCHED) -> tuple[Effect, str]:
    """The control's distance from inoculation's loss as a share of neutral's distance, and that in words."""
    mean = per_example(evidence, "loss").mean()
    miss, distance = mean[control] - mean[INOCULATION], mean[NEUTRAL] - mean[INOCULATION]
    share = abs(miss) / abs(distance) if distance != 0 else float("inf")
    verdict = "loss-matched" if share <= rules.loss_match else "not loss-matched"
    words = (
        f"The {control} control is {verdict}: its loss is {miss:+.3g} nats/token from inoculation's, "
        f"{100 * share:.0f} % of neutral's {distance:+.3g} (at most {100 * rules.loss_match:g} % allowed)."
    )
    examples = evidence.alignments["example"].nunique()
    name = f"loss gap of {control}, share of neutral's"
    return bare(name, share, examples, "examples", "ratio of mean gaps"), words


def matched_controls(evidence: Evidence, rules: Rules) -> list[Effect]:
    """Alignment, control - inoculation, for each further control whose loss is inoculation's (see `loss_audit`).

    Of the conditions beside neutral, inoculation and loss_matched, those within `rules.loss_match` on the measured
    examples: equal loss by design, without a model of how alignment goes with loss.
    """
    further = [name for name in evidence.conditions if name not in THE_PLANS]
    matched = [name for name in further if loss_audit(evidence, rules, name)[0].estimate <= rules.loss_match]
    return [inoculation_contrast(evidence, rules, name) for name in matched]


def matched_checkpoints(evidence: Evidence, rules: Rules) -> list[Effect]:
    """Alignment at neutral checkpoints of inoculation's first loss, minus inoculation's on the base model.

    Paired by example, the mean over seeds and then each seed; and the loss that is left between them. Equal loss
    reached by training in place of a prompt; it stands beside and does not decide. Empty where it was not measured.
    """
    if evidence.matched.empty:
        return []
    reached = matched_checkpoint(evidence)
    base = {column: per_example(evidence, column)[INOCULATION] for column in COMPARED}
    groups = example_groups(evidence, "alignments", base["loss"].index)
    parts = {"mean over seeds": reached.groupby("example").mean()}
    parts |= {f"seed {seed}": reached.loc[seed] for seed in evidence.seeds}

    def compare(column: str, name: str, rows: pd.DataFrame) -> Effect:
        both = rows[column].reindex(base[column].index), base[column]
        return grouped_pairs(*both, groups, f"{name}, neutral checkpoint - inoculation", 1 - rules.alpha)

    alignment = [compare("alignment", f"alignment at equal loss, {part}", rows) for part, rows in parts.items()]
    return [*alignment, compare("loss", "loss left at equal loss", parts["mean over seeds"])]


def claim_3(evidence: Evidence, rules: Rules, gates: Sequence[Finding]) -> Finding:
    """C3: supported if at equal loss the interval is above zero, by every way of making losses equal.

    These are regression (ANCOVA) and bins inside the common range of losses, and regression of differences
    within examples. The first two compare different examples at equal loss, and so also whatever else makes
    examples hard; the third cannot be misled so, and without it an effect that is all loss could pass (see
    `adjustment`). A further control that is loss-matched has to agree (see `matched_controls`); neutral checkpoints at
    inoculation's first loss stand beside.

    Refuted in two ways. The cosine is equivalent to unchanged (TOST, margin `rules.equivalence` of the
    neutral alignment) and not shown to fall, while loss or gradient norm fall. Or there is an effect inside
    the common range, which at equal loss is equivalent to zero (TOST on the ANCOVA, margin
    `rules.null_margin` of the effect), and the regression within examples does not say otherwise. An overlap
    of losses below `rules.overlap` leaves the claim undecided.
    """
    losses, norms = per_example(evidence, "loss"), per_example(evidence, "grad_norm")
    groups = example_groups(evidence, "alignments", losses.index)
    falls = [
        grouped_pairs(frame[NEUTRAL], frame[INOCULATION], groups, f"{name}, neutral - inoculation", 1 - rules.alpha)
        for name, frame in (("loss", losses), ("gradient norm", norms))
    ]
    unchanged = cosine_change(evidence, rules)
    shared = overlap(losses[NEUTRAL], losses[INOCULATION])
    name = "overlap of losses, neutral and inoculation"
    audit, words = loss_audit(evidence, rules)
    controls, checkpoints = matched_controls(evidence, rules), matched_checkpoints(evidence, rules)
    overlapping = bare(name, shared, len(losses), "examples", "overlap coefficient")
    further = [loss_audit(evidence, rules, control)[0] for control in evidence.conditions if control not in THE_PLANS]
    effects = [*falls, unchanged, overlapping, audit, *further, *controls, *checkpoints]
    statement = f"{words} The losses of neutral and inoculation overlap by {shared:.2f}"
    if shows_no_change(evidence, rules) and any(fall.low > 0 for fall in falls):
        outcome = Outcome(
            Status.REFUTED,
            "Loss or gradient norm fall under inoculation while the cosine is equivalent to unchanged "
            f"(within {100 * rules.equivalence:g} % of the neutral alignment, p {unchanged.p:.2g}); "
            "a larger change of the cosine would have been compared at equal loss.",
        )
        return conclude("C3", outcome, f"{statement}; alignment changes by {unchanged}.", effects, gates)
    pairs = paired_with_loss(evidence, NEUTRAL)
    if shared < rules.overlap or not pairs.common.any(axis=0).all():
        reason = (
            f"Undecided because the losses overlap by less than {rules.overlap:g}: equal losses are hardly observed."
        )
        return conclude("C3", Outcome(Status.UNDECIDED, reason), f"{statement}.", effects, gates)
    raw, adjusted = adjusted_contrasts(pairs, rules)
    kept = adjusted[0].estimate / raw.estimate if raw.estimate != 0 else math.nan
    share = bare("share of the effect kept at equal loss", kept, raw.n, raw.unit, "regression / condition alone")
    statement += (
        f". Among losses that both reach, alignment differs by {raw}; at equal loss by {adjusted[0]} in the "
        f"regression, by {adjusted[1]} in bins, by {adjusted[2]} within examples: {100 * kept:.0f} % is kept."
    )
    statement += "".join(f" Beside it, {effect.name}: {effect}." for effect in (*controls, *checkpoints[:1]))
    outcome = _at_equal_loss(raw, adjusted, controls, rules)
    return conclude("C3", outcome, statement, [*effects, raw, *adjusted, share], gates)


def adjusted_contrasts(pairs: Paired, rules: Rules) -> tuple[Effect, list[Effect]]:
    """Alignment, neutral - inoculation, on common losses; and the same at equal loss, in three ways."""
    raw = raw_contrast(pairs, "alignment, neutral - inoculation, common losses")
    adjusted = (
        ancova(pairs, "alignment at equal loss, regression"),
        binned(pairs, "alignment at equal loss, bins", rules.bins),
        within_example(pairs, "alignment at equal loss, within examples"),
    )
    return at_level(raw, 1 - rules.alpha), [at_level(effect, 1 - rules.alpha) for effect in adjusted]


def _at_equal_loss(raw: Effect, adjusted: Sequence[Effect], controls: Sequence[Effect], rules: Rules) -> Outcome:
    if not raw.low > 0:
        return Outcome(
            Status.UNDECIDED,
            "Undecided because among common losses no fall of alignment is shown that loss could explain.",
        )
    short = [effect.name for effect in (*adjusted, *controls) if not effect.low > 0]
    if not short:
        return Outcome(
            Status.SUPPORTED,
            "At equal loss every interval lies above zero; one that reached zero would have left it undecided.",
        )
    regression, within = adjusted[0], adjusted[-1]
    gone = tost(regression, rules.null_margin * raw.estimate, rules.alpha)
    if gone.p <= rules.alpha and not within.low > 0:
        return Outcome(
            Status.REFUTED,
            f"At equal loss the effect is equivalent to zero (within {100 * rules.null_margin:g} % of it, "
            f"p {gone.p:.2g}): loss explains it. Intervals above zero would have supported the claim.",
        )
    return Outcome(Status.UNDECIDED, f"Undecided because the interval is not above zero for {', '.join(short)}.")
