"""Gates on the trait direction: it separates and is stable (G1, G2), and it is the trait's (G8)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from gradinoc.claims.evidence.measures import (
    DIVERGED,
    diverged_runs,
    drift_by_question,
    in_window,
    nulls_in_window,
    question_groups,
    run_families,
)
from gradinoc.claims.evidence.tables import PROJECTION, TRAIT_DRAW, Evidence
from gradinoc.claims.evidence.wide import cube_of
from gradinoc.claims.rules.criteria import above_zero, at_least, interval_below, p_at_most
from gradinoc.claims.rules.finding import Claim, Measured, Outcome, held, in_words, refuted
from gradinoc.stats.clustered import grouped_mean
from gradinoc.stats.effect import Effect, bare, finite, mean_effect, noisy_null_p
from gradinoc.stats.families import contrast
from gradinoc.stats.places import slope_among, slope_on_strength
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules


def _lowest_in_band(evidence: Evidence, column: str, name: str) -> tuple[Effect, int]:
    """The lowest value of a column of `layers` over the band, and at which layer."""
    band = evidence.layers[evidence.layers["in_band"]].reset_index(drop=True)
    values = finite(band[column].to_numpy(), f"Evidence table 'layers', column {column!r}, band")
    at = int(band["layer"].iloc[int(values.argmin())])
    return bare(name, float(values.min()), len(band), "layers", "minimum over the band"), at


def _separation(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    effect, layer = _lowest_in_band(evidence, "auc", "lowest AUC in the band")
    statement = (
        f"On held-out prompts the projection's lowest AUC over the band's {effect.n} layers is "
        f"{effect.estimate:.3f} (layer {layer})."
    )
    return Measured({"auc": effect}, statement)


def _separates(found: Measured, rules: Rules) -> Outcome:
    return held(f"AUC of at least {rules.auc} at every layer of the band", at_least(found["auc"], rules.auc))


def _stability(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    effect, layer = _lowest_in_band(evidence, "split_half_cosine", "lowest split-half cosine in the band")
    statement = (
        f"Directions from two halves of the prompts have a cosine of {effect.estimate:.3f} or more over the "
        f"band (lowest at layer {layer})."
    )
    return Measured({"split_half": effect}, statement)


def _stable(found: Measured, rules: Rules) -> Outcome:
    rule = f"a split-half cosine of at least {rules.split_half} at every layer of the band"
    return held(rule, at_least(found["split_half"], rules.split_half))


def _steering(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """The slope of decision log-odds on strength along v, its place among other directions, the loss of either form."""
    steered, _ = cube_of(evidence.steering, ("draw", "strength", "example"), "log_odds")
    draws, strengths, questions = steered.levels
    outcome, others = steered.at(TRAIT_DRAW).cells, steered.cells[draws != TRAIT_DRAW]
    groups = question_groups(evidence, "steering", pd.Index(questions))
    name = "decision log-odds per unit of steering"
    losses = evidence.steering_losses.pivot_table(index="strength", columns="example", values="loss")
    rise = losses.sub(losses.loc[0.0]).drop(index=0.0)
    worst = rise.mean(axis=1).idxmax()
    loss_groups = question_groups(evidence, "steering_losses", losses.columns)
    loss = grouped_mean(
        rise.loc[worst], loss_groups, f"loss of either form, steered by {worst:g}, less unsteered", 1 - rules.alpha
    )
    effects = {
        "slope": slope_on_strength(outcome, strengths, groups, name),
        "place": replace(slope_among(outcome, others, strengths, groups, name), name=f"{name}, among other directions"),
        "loss": loss,
    }
    statement = (
        f"Adding the direction moves the decision log-odds by {effects['slope']} nats per unit of strength (p "
        f"{in_words(effects['place'].p)} among {len(others)} directions of the same length); the loss of either form "
        f"rises by at most {loss.estimate:.3g} nats."
    )
    return Measured(effects, statement)


def _steers(found: Measured, rules: Rules) -> Outcome:
    rule = (
        f"a slope above zero with p at most {rules.alpha:g} among directions of the same length, and a loss of either "
        f"form whose interval is below {rules.either_loss:g} nats more"
    )
    return held(
        rule,
        above_zero(found["slope"]),
        p_at_most(found["place"], rules.alpha),
        interval_below(found["loss"], rules.either_loss),
    )


def _movement(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """How far training under the neutral prompt moves the residual stream along v, runs and questions as error."""
    if diverged_runs(evidence):
        return Measured({}, DIVERGED)
    wide = drift_by_question(evidence, PROJECTION)
    families = run_families(evidence, wide, question_groups(evidence, "drift", wide.index, PROJECTION))
    moved = contrast(families, {NEUTRAL: 1.0}, "projection, neutral runs, after - before", 1 - rules.alpha, "runs")
    return Measured({"moved": moved}, f"Neutral runs move along the direction by {moved} hidden-state units.")


def _moves(found: Measured, rules: Rules) -> Outcome:
    if not found.effects:
        return refuted(found.statement)
    return held("neutral runs' shift along +v above zero", above_zero(found["moved"]))


def _pressure(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """Neutral alignment in the first third of training, by run, and its place among random directions."""
    name = "alignment of neutral runs, first third of training"
    if diverged_runs(evidence):
        return Measured({}, DIVERGED)
    aligned = in_window(evidence)[NEUTRAL]
    over_seeds = mean_effect(aligned, name, "runs", 1 - rules.alpha)
    draws = nulls_in_window(evidence)[NEUTRAL].mean(axis=1).to_numpy(dtype=np.float64)
    place = replace(over_seeds, name=f"{name}, among random directions", n=len(draws), unit="directions")
    p = noisy_null_p(over_seeds, draws) if np.isfinite(over_seeds.standard_error) else np.nan
    place = replace(place, p=float(p), method="(1 + sum of t tails) / (1 + K)")
    where = f"p {p:.2g} among" if np.isfinite(p) else "no place can be told among"
    statement = (
        f"In the first third of training neutral alignment is {over_seeds} ({where} {len(draws)} random directions)."
    )
    return Measured({"alignment": over_seeds, "place": place}, statement)


def _pushes(found: Measured, rules: Rules) -> Outcome:
    if not found.effects:
        return refuted(found.statement)
    rule = (
        f"neutral alignment in the first third of training above zero, with p at most {rules.alpha:g} among random "
        "directions"
    )
    return held(rule, above_zero(found["alignment"]), p_at_most(found["place"], rules.alpha))


G1 = Claim("G1", "The trait direction separates held-out prompts.", _separation, _separates)
G2 = Claim("G2", "The trait direction is stable.", _stability, _stable)
G8A = Claim("G8a", "Steering along the direction brings the trait.", _steering, _steers)
G8B = Claim("G8b", "Neutral training moves the model along the direction.", _movement, _moves)
G8C = Claim("G8c", "Neutral gradients push along the direction.", _pressure, _pushes)
