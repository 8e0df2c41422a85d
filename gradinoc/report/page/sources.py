"""Where the drift comes from: how much of what inoculation changes is due to what, and through which weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from gradinoc.claims.evidence.measures import HARMLESS, INOCULATING
from gradinoc.claims.evidence.sources import prompts_of
from gradinoc.claims.evidence.tables import IN_ANSWER, IN_PROMPT, TRAIT_DIRECTION, WHOLE, Evidence
from gradinoc.claims.evidence.wide import band_of
from gradinoc.claims.rules.finding import Finding
from gradinoc.claims.rules.verdict import Judgement
from gradinoc.report.figures.study_figure import told
from gradinoc.report.numbers import if_measured
from gradinoc.report.page.grid import EFFECT, Column, Grid, effect_row, grid
from gradinoc.stats.effect import Effect
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.settings import NULLS

TITLE = "Where the drift comes from"
KINDS = {  # what inoculation may do -> claim and effect -> how to read it
    "explaining away": {
        ("C7a", "share.learned"): "near one: harmless and inoculating runs differ in how much they learn under their "
        "own prompt",
    },
    "conditionalization": {
        ("C7a", "share.transfer"): "near one: they differ in how much of what they learn reaches neutral",
        ("C7a", "transfer.harmless"): "one: under neutral as much as under the own prompt; zero: none reaches neutral",
        ("C7a", "transfer.inoculation"): "below the row above: more of it stays under the own prompt",
    },
    "rotation": {
        ("C7a", "share.turn"): "near one: updates point elsewhere, and are no smaller",
        ("C7b", "share"): "how much runs along the trait direction; directions overlap, so that these "
        "shares do not add up to one",
        ("C7b", "share.neutral"): "the same of the difference between neutral and inoculating runs",
        ("C7b", "named.learned"): "how much runs along the direction in which neutral runs moved",
        ("C7b", "named.responses"): "how much runs along the contrast of answers with and without the trait",
        **{
            ("C7b", f"random.{null}"): "how much runs along a direction picked at random: mean, and where 95 % of "
            "them lie"
            for null in NULLS
        },
    },
    "magnitude": {
        ("C7a", "share.size"): "near one: updates are smaller, and point the same way",
        ("C7a", "share.steepness"): "near one: the same update moves the log-odds less",
    },
}
HOW_MUCH = (Column("what", "what", numeric=False), *EFFECT, Column("reads", "how to read it", numeric=False))
TOTALS = {
    ("C7a", "phi"): "in all",
    ("C7b", "whole"): "by way of the band, which shares along directions are of",
}
FAMILIES = (
    Column("harmless", "harmless", "nats"), Column("inoculating", "inoculating", "nats"),
    Column("difference", "difference", "nats"),
)  # fmt: skip
DIRECTIONS = {WHOLE: "all directions", TRAIT_DIRECTION: "trait direction v"}
PLACES = {IN_PROMPT: "prompt", IN_ANSWER: "answer"}


@dataclass(frozen=True)
class Sources:
    """The section: shares with how to read them, and drift by kind of linear map and by tokens."""

    title: str
    shares: Grid
    modules: Grid
    tokens: Grid


def sources(judgement: Judgement, evidence: Evidence) -> Sources | None:
    """The section of a study that was judged; None where nothing of it was measured."""
    rows = [*_shares(judgement)]
    if not rows:
        return None
    shares = grid("Of what inoculation changes, how much …", HOW_MUCH, rows, _about(judgement))
    return Sources(TITLE, shares, module_grid(evidence), token_grid(evidence))


def _about(judgement: Judgement) -> str:
    """What shares are of, with its interval."""
    found = {finding.key: finding for finding in judgement.claims}
    totals = [(found[claim].get(key), words) for (claim, key), words in TOTALS.items() if claim in found]
    known = "; ".join(f"{told(effect, units='nats')} {words}" for effect, words in totals if effect is not None)
    return (
        "Shares are of the difference between harmless and inoculating runs in the neutral drift that their steps "
        f"account for{': ' if known else ''}{known}. They are estimates alone where that difference may be zero. Two "
        "splits add up to one each: learned and transfer; turn, size of the update and size of the gradient."
    )


def _shares(judgement: Judgement) -> Iterator[dict[str, Any]]:
    found: dict[str, Finding] = {finding.key: finding for finding in judgement.claims}
    for what, effects in KINDS.items():
        for (claim, key), reads in effects.items():
            effect = found[claim].get(key) if claim in found else None
            if effect is not None:
                row = effect_row(effect, what=what, reads=reads)
                yield {**row, "interval": interval_or_why(effect, row["interval"])}


def interval_or_why(effect: Effect, interval: str) -> str:
    """An effect's interval, or in a few words why it has none; the method in full stands beside its claim."""
    if interval != "–":
        return interval
    return effect.method.partition(" (")[0].replace("the denominator", "the difference")


def module_grid(evidence: Evidence) -> Grid:
    """Accounted neutral drift by kind of linear map, all layers together; the last row is their sum."""
    wide = if_measured(_by_module, evidence)
    table = pd.DataFrame() if wide is None else _by_family(evidence, wide)
    rows = [{"module": str(name), **row} for name, row in table.to_dict("index").items()]
    if rows:
        rows.append({"module": "all", **table.sum().to_dict()})
    about = (
        "Neutral drift that steps account for (nats of decision log-odds), summed over layers and over the run, mean "
        f"over questions and prompts{_counts(evidence)}. Difference: harmless − inoculating."
    )
    return grid("By kind of linear map", (Column("module", "linear map", numeric=False), *FAMILIES), rows, about)


def token_grid(evidence: Evidence) -> Grid:
    """Accounted neutral drift by tokens of prompt or answer, along all directions together and along v."""
    rows = []
    for direction, words in DIRECTIONS.items():
        wide = if_measured(_by_position, evidence, direction)
        table = pd.DataFrame() if wide is None else _by_family(evidence, wide)
        found = table.to_dict("index")
        rows += [{"tokens": PLACES[name], "direction": words, **found[name]} for name in PLACES if name in found]
    columns = (Column("tokens", "tokens of", numeric=False), Column("direction", "along", numeric=False), *FAMILIES)
    about = (
        "Neutral drift that goes by way of the residual stream at these tokens (nats of decision log-odds), "
        f"mean over the band's layers, evaluation questions and prompts{_counts(evidence)}. Difference: harmless − "
        "inoculating."
    )
    return grid("By tokens of prompt or answer", columns, rows, about)


def _counts(evidence: Evidence) -> str:
    """How many prompts of either family were trained under and accounted for."""
    counts = []
    for family in (HARMLESS, INOCULATING):
        names = if_measured(prompts_of, evidence, family)
        counts.append(f"{len(names or ())} {family}")
    return f", n = {' and '.join(counts)} prompts"


def _by_module(evidence: Evidence) -> pd.DataFrame:
    """Index kind of linear map, a column a prompt: accounted neutral drift, nats."""
    rows = evidence.modules[evidence.modules["evaluation"] == NEUTRAL]
    return _prompts(rows, "module", "predicted", 1)


def _by_position(evidence: Evidence, direction: str) -> pd.DataFrame:
    """Index tokens of prompt or answer, a column a prompt: what went along a direction, band mean, nats."""
    band = band_of(evidence)
    rows = evidence.shares
    rows = rows[(rows["direction"] == direction) & rows["layer"].isin(band)]
    return _prompts(rows, "position", "along", len(band) * rows["example"].nunique())


def _prompts(rows: pd.DataFrame, key: str, column: str, count: int) -> pd.DataFrame:
    """Sums of runs over `count`, mean over seeds: index `key`, a column a prompt."""
    sums = rows.groupby([key, "condition", "seed"], observed=True, sort=False)[column].sum() / count
    means = sums.groupby(level=[key, "condition"], sort=False).mean().reset_index()
    return means.pivot_table(index=key, columns="condition", values=column, sort=False)


def _by_family(evidence: Evidence, wide: pd.DataFrame) -> pd.DataFrame:
    """Means over harmless and inoculating prompts, and their difference."""
    harmless, inoculating = (wide[prompts_of(evidence, family)].mean(axis=1) for family in (HARMLESS, INOCULATING))
    return pd.DataFrame({"harmless": harmless, "inoculating": inoculating, "difference": harmless - inoculating})
