"""Plot 10: the pool of prompts that the control is chosen from, by loss."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.tables import CANDIDATE, Evidence
from gradinoc.report.figures.study_figure import Drawn, StudyFigure
from gradinoc.report.figures.style import (
    BAND,
    FAINT,
    HEIGHT,
    INK,
    SOFT,
    Look,
    height_beside,
    label_ends,
    look,
    new_figure,
    not_measured,
    styled,
    wrapped,
)  # fmt: skip
from gradinoc.report.numbers import mean_interval
from gradinoc.report.wording import NOT_MEASURED, listed, rounded
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules

OTHER_PROMPT = Look("#9a9a9a", "o", "-")


def pool_losses(evidence: Evidence) -> pd.DataFrame:
    """One row a prompt of the pool: role, prompt, chosen, loss, gap, low, high, sorted by loss.

    `loss` is the mean over calibration questions, `gap` its difference to inoculation's, paired by question, with
    the 95 % t interval `low` to `high`. A prompt that is also a condition's own is that condition's row; so is the
    chosen one where a single condition has no row, since that is the one whose prompt was to be chosen.
    """
    columns = ["role", "prompt", "chosen", "loss", "gap", "low", "high"]
    pool = evidence.pool.assign(prompt=evidence.pool["prompt"].fillna("")).dropna(subset=["loss"])
    left = [name for name in evidence.conditions if name not in set(pool["role"])]
    if len(left) == 1:
        pool["role"] = pool["role"].where(~pool["chosen"].astype(bool), left[0])
    target = pool[pool["role"] == INOCULATION].set_index("example")["loss"].astype(float)
    rows = []
    for (role, prompt), group in pool.groupby(["role", "prompt"], sort=False):
        losses = group.set_index("example")["loss"].astype(float)
        gap = mean_interval(losses - target.reindex(losses.index))
        rows.append((role, prompt, bool(group["chosen"].any()), losses.mean(), gap.estimate, gap.low, gap.high))
    table = pd.DataFrame(rows, columns=columns)
    table["chosen"] = table.groupby("prompt")["chosen"].transform("any") if len(table) else table["chosen"]
    own = table["role"] != CANDIDATE
    table = table[own | ~table["prompt"].isin(table.loc[own, "prompt"])]
    return table.sort_values("loss", ignore_index=True, kind="stable")


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Every prompt of the pool by its loss gap to inoculation on the calibration questions, the chosen one ringed."""
    pool = pool_losses(evidence)
    height = height_beside((*evidence.conditions, ""), max(HEIGHT, 2.0 + 0.14 * len(pool)))
    figure = new_figure("System prompts by loss", height)
    axes = figure.add_subplot()
    axes.set_xlabel("loss on calibration questions\nminus inoculation's (nats/token)")
    if pool["gap"].isna().all():
        not_measured(axes, "pool of prompts")
        return Drawn(figure)
    axes.axvline(0, color=FAINT, linewidth=1)
    axes.set_ylim(-0.7, len(pool) + 0.9)
    _shade_allowed(axes, pool, rules)
    ends = [_draw_prompt(axes, row, prompt, evidence) for row, prompt in enumerate(pool.to_dict("records"))]
    axes.set(yticks=[], ylabel=f"{len(pool)} prompts, by loss")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    label_ends(axes, [end for end in ends if end[2]])
    pool = pool[pool["gap"].notna()]
    return Drawn(figure, _caption(evidence, pool, rules), _finding(evidence, pool))


def _shade_allowed(axes: Axes, pool: pd.DataFrame, rules: Rules) -> None:
    """Grey behind the gaps at which a control counts as loss-matched."""
    distance = pool.loc[pool["role"] == NEUTRAL, "gap"].abs().max()
    if not math.isfinite(distance):
        return
    margin = rules.loss_match * float(distance)
    axes.axvspan(-margin, margin, color=BAND, linewidth=0, zorder=0)
    axes.text(0, 0.985, "matched", transform=axes.get_xaxis_transform(), ha="center", va="top", color=SOFT)


def _draw_prompt(axes: Axes, row: int, prompt: dict[str, Any], evidence: Evidence) -> tuple[float, float, str, str]:
    """Draw one prompt on its row; where its interval ends, its name (none for an unchosen candidate) and ink."""
    own = prompt["role"] != CANDIDATE
    style = look(prompt["role"], evidence.conditions) if own else OTHER_PROMPT
    gap, reach = prompt["gap"], prompt["high"] if math.isfinite(prompt["high"]) else prompt["gap"]
    axes.plot([prompt["low"], prompt["high"]], [row, row], color=style.colour, linewidth=2, solid_capstyle="butt")
    axes.plot([gap], [row], marker=style.marker, markersize=9 if own else 6, color=style.colour, zorder=4)
    if prompt["chosen"]:
        axes.plot(
            [gap], [row], marker="o", markersize=16, color="none", markeredgecolor=INK, markeredgewidth=1.8, zorder=5
        )
    name = wrapped(prompt["role"]) if own else "chosen" * prompt["chosen"]
    return reach, float(row), name + ("\n(chosen)" if own and prompt["chosen"] else ""), style.ink if own else INK


def candidates(evidence: Evidence) -> int:
    """How many harmless prompts the pool has."""
    return int(evidence.pool.loc[evidence.pool["role"] == CANDIDATE, "prompt"].nunique())


def _caption(evidence: Evidence, pool: pd.DataFrame, rules: Rules) -> str:
    own = pool[pool["role"] != CANDIDATE].to_dict("records")
    levels = listed((row["role"], f"{row['loss']:.3f} ({row['gap']:+.3f})") for row in own)
    chosen, picked = pool[pool["chosen"]].to_dict("records"), ""
    if chosen:
        loss, gap, low, high = (chosen[0][column] for column in ("loss", "gap", "low", "high"))
        picked = (
            f" Chosen (ringed), the candidate closest to inoculation: {loss:.3f}, a gap of {gap:+.3f} "
            f"({low:+.3f} to {high:+.3f})."
        )
    allowed = f" Shaded: within {100 * rules.loss_match:g} % of neutral's distance."
    shaded = allowed if NEUTRAL in set(pool["role"]) else ""
    return (
        f"Mean loss of the trait-bearing answers under each of {candidates(evidence)} harmless system prompts and "
        f"under the conditions' own, n = {evidence.pool['example'].nunique()} calibration questions, nats/token, as "
        f"the difference to inoculation's with its paired 95 % t interval. Loss, and in brackets that difference: "
        f"{levels}.{picked}{shaded}"
    )


def _finding(evidence: Evidence, pool: pd.DataFrame) -> str:
    chosen, neutral = pool[pool["chosen"]], pool[pool["role"] == NEUTRAL]
    if chosen.empty or neutral.empty:
        return NOT_MEASURED
    return (
        f"Of {candidates(evidence)} harmless prompts the one that comes closest to inoculation's loss is "
        f"{rounded(chosen['gap'].iloc[0])} nats/token from it, neutral {rounded(neutral['gap'].iloc[0])}."
    )


FIGURE = StudyFigure("plot10_prompt_pool", ("C3",), draw)
