"""How the plan and earlier rules would have read a study, beside the verdict: it decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradinoc.claims.rules.verdict import Judgement
from gradinoc.report.page.grid import EFFECT, Column, Grid, blank_row, effect_row, grid
from gradinoc.report.wording import p_of
from gradinoc.stats.effect import Effect
from gradinoc.study.prompts import LOSS_MATCHED, NEUTRAL
from gradinoc.study.rules import VERSION, Published, Rules

SEEN = f"Version 1's outcome had been seen when the rules of version {VERSION} were made."
COLUMNS = (
    Column("asked", "the plan asks", numeric=False), *EFFECT, Column("p", "p", numeric=False),
    Column("met", "met", numeric=False),
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """The plan's three-way reading of a study: in words, and the numbers that it rests on."""

    words: str
    numbers: Grid


def versions(published: Published, judgement: Judgement) -> dict[str, str]:
    """Version of the rules -> its verdict in words; empty for a study that version 1 did not judge."""
    if published.first_verdict is None:
        return {}
    now = judgement.verdict.name.replace("_", " ")
    first = published.first_verdict.upper().replace("_", " ")
    return {"version 1 (as published)": first, f"version {VERSION}": now}


def versions_sentence(published: Published, judgement: Judgement) -> str:
    """Both verdicts in a sentence; empty for a study that version 1 did not judge."""
    both = versions(published, judgement)
    if not both:
        return ""
    return f"Rules of {', of '.join(f'{version}: {verdict}' for version, verdict in both.items())}. {SEEN}"


def plan_reading(judgement: Judgement, rules: Rules) -> Reading:
    """Supported, weaker (loss-mediated) or useful negative (different mechanism), by the plan's own criteria alone."""
    asked = {
        f"alignment falls: {NEUTRAL}": ("C1", f"alignment.{NEUTRAL}"),
        f"alignment falls: {LOSS_MATCHED}": ("C1", f"alignment.{LOSS_MATCHED}"),
        "random directions do not show it": ("C2", "null.isotropic"),
        "at equal loss too": ("C3", "within"),
        "alignment predicts drift": ("C4", "runs"),
        "drift falls": ("C6", "removed"),
    }
    effects = {words: judgement[claim].get(key) for words, (claim, key) in asked.items()}
    met = {words: _met(effect, words, rules) for words, effect in effects.items()}
    rows = [_row(words, effect, met[words]) for words, effect in effects.items()]
    about = (
        "By the plan's criteria alone, without gates: they count questions and runs where prompts differ (the plan's "
        "nine runs are three prompts), and decide nothing here."
    )
    return Reading(_reading(*met.values()), grid("The plan's reading, and what it rests on", COLUMNS, rows, about))


def _reading(neutral: bool, matched: bool, other: bool, loss: bool, predicts: bool, falls: bool) -> str:
    """The first of the plan's readings that applies."""
    if all((neutral, matched, other, loss, predicts)):
        return "supported"
    if neutral and not (matched and loss):
        return "weaker: mediated by loss, since alignment falls and at equal loss it is not shown to"
    if falls and not neutral:
        return "useful negative: a different mechanism, since drift falls and alignment is not shown to"
    return "none of the three: the plan's criteria are met in part"


def _met(effect: Effect | None, words: str, rules: Rules) -> bool:
    """Whether an effect meets the plan: by its interval, or where p counts draws or orders, by its sign and p."""
    if effect is None:
        return False
    if words in ("random directions do not show it", "alignment predicts drift"):
        return bool(effect.estimate > 0 and effect.p <= rules.alpha)
    return bool(effect.low > 0)


def _row(asked: str, effect: Effect | None, met: bool) -> dict[str, Any]:
    if effect is None:
        return blank_row("not measured", asked=asked, p="–", met="no")
    return effect_row(effect, asked=asked, p=p_of(effect), met="yes" if met else "no")
