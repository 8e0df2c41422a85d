"""Where the drift comes from: how much of what inoculation changes is due to what, and through which weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from gradinoc.claims.evidence.sources import difference_by, in_band
from gradinoc.claims.evidence.tables import IN_ANSWER, IN_PROMPT, TRAIT_DIRECTION, WHOLE, Evidence
from gradinoc.claims.evidence.wide import band_of
from gradinoc.claims.rules.finding import Finding
from gradinoc.claims.rules.verdict import Judgement
from gradinoc.report.figures.study_figure import told
from gradinoc.report.numbers import if_measured
from gradinoc.report.page.grid import EFFECT, Column, Grid, effect_row, grid
from gradinoc.report.page.thirds import prompt_counts, third_grid
from gradinoc.stats.effect import Effect
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.settings import NULLS

TITLE = "Where the drift comes from"
TABLES = ("attribution", "modules", "shares", "kernel")  # any of which makes a section
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
    "turn of the update: cosine of update and gradient of the log-odds": {
        ("C7a", "share.turn"): "near one: updates point elsewhere, and are no smaller",
    },
    "directions of the residual stream": {
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
    """The section: shares with how to read them, and drift by third of training, kind of linear map and tokens."""

    title: str
    shares: Grid
    thirds: Grid
    modules: Grid
    tokens: Grid

    @property
    def further(self) -> tuple[Grid, ...]:
        """The tables below the figures, those that have rows."""
        return tuple(each for each in (self.thirds, self.modules, self.tokens) if each.rows)


def sources(judgement: Judgement, evidence: Evidence) -> Sources | None:
    """The section of a study that was judged; None where nothing of it was measured."""
    if all(getattr(evidence, table).empty for table in TABLES):
        return None
    shares = grid("Of what inoculation changes, how much …", HOW_MUCH, [*_shares(judgement)], _about(judgement))
    return Sources(TITLE, shares, third_grid(evidence), module_grid(evidence), token_grid(evidence))


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
    table = _table(_by_module, evidence)
    rows = [{"module": str(name), **row} for name, row in table.to_dict("index").items()]
    if rows:
        rows.append({"module": "all", **table.sum().to_dict()})
    about = (
        "Neutral drift that steps account for (nats of decision log-odds), summed over layers and over the run, mean "
        f"over questions and prompts{prompt_counts(evidence)}. Difference: harmless − inoculating."
    )
    return grid("By kind of linear map", (Column("module", "linear map", numeric=False), *FAMILIES), rows, about)


def token_grid(evidence: Evidence) -> Grid:
    """Accounted neutral drift by tokens of prompt or answer, along all directions together and along v."""
    rows = []
    for direction, words in DIRECTIONS.items():
        found = _table(_by_position, evidence, direction).to_dict("index")
        rows += [{"tokens": PLACES[name], "direction": words, **found[name]} for name in PLACES if name in found]
    columns = (Column("tokens", "tokens of", numeric=False), Column("direction", "along", numeric=False), *FAMILIES)
    about = (
        "Neutral drift that goes by way of the residual stream at these tokens (nats of decision log-odds), "
        f"mean over the band's layers, evaluation questions and prompts{prompt_counts(evidence)}. Difference: harmless "
        "− inoculating."
    )
    return grid("By tokens of prompt or answer", columns, rows, about)


def _table(measure: Callable[..., pd.DataFrame], *given: Any) -> pd.DataFrame:
    """What `measure` finds; empty where it was not measured."""
    found = if_measured(measure, *given)
    return pd.DataFrame() if found is None else found


def _by_module(evidence: Evidence) -> pd.DataFrame:
    """Index kind of linear map: accounted neutral drift by family, nats."""
    rows = evidence.modules[evidence.modules["evaluation"] == NEUTRAL]
    return difference_by(evidence, rows, "module", "predicted")


def _by_position(evidence: Evidence, direction: str) -> pd.DataFrame:
    """Index tokens of prompt or answer: what went along a direction by family, band mean, nats."""
    rows = in_band(evidence, direction)
    return difference_by(evidence, rows, "position", "along", len(band_of(evidence)) * rows["example"].nunique())
