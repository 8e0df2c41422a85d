"""The right half of plot 20: what runs along directions at single layers, in nats. Exploratory: it decides nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.evidence.measures import HARMLESS, INOCULATING
from gradinoc.claims.evidence.sources import difference_by, prompts_of
from gradinoc.claims.evidence.tables import LEARNED, TRAIT_DIRECTION, Evidence
from gradinoc.claims.evidence.wide import band_of
from gradinoc.report.figures.prompts.families import spread_of
from gradinoc.report.figures.style import FAINT, INK, SOFT, Look, label_ends, not_measured, shade_band
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import number, rounded
from gradinoc.stats.effect import finite
from gradinoc.study.settings import INSTRUCTION, NULLS

RESPONSES = "responses"
LABELS = {TRAIT_DIRECTION: "v", LEARNED: "learned\ndrift", RESPONSES: "response\ncontrast"}
STYLES = {  # no family's colours
    TRAIT_DIRECTION: Look(INK, "o", "-"),
    LEARNED: Look("#5D3A9B", "D", (0, (4, 1.2))),
    RESPONSES: Look("#B07D00", "v", (0, (1.2, 1.2))),
}
OTHERS = (LEARNED, RESPONSES)


@dataclass(frozen=True)
class Layers:
    """Harmless - inoculating of accounted neutral drift along directions, nats.

    Attributes:
        along: direction -> by layer.
        random: low and high by layer of the band: the central 95 % of instruction contrasts; empty without any.
        draws: how many these are.
        counts: harmless and inoculating prompts.
        band: the layers whose mean decides.
        mean: that along v, of which C7b takes the share.
    """

    along: dict[str, pd.Series]
    random: pd.DataFrame
    draws: int
    counts: tuple[int, int]
    band: list[int]
    mean: float

    @property
    def table(self) -> pd.DataFrame:
        """A row a direction and layer: `direction`, `layer`, `nats`."""
        parts = [values.rename("nats").reset_index().assign(direction=key) for key, values in self.along.items()]
        ends = self.random.rename_axis("layer").reset_index().melt("layer", var_name="direction", value_name="nats")
        ends["direction"] = f"{INSTRUCTION}, " + ends["direction"].astype(str)
        return pd.concat([*parts, ends])[["direction", "layer", "nats"]]


def layers_of(evidence: Evidence) -> Layers:
    """What runs along v and the other drawn directions at each layer.

    Raises:
        ValueError: nothing along v, no band, or a number that is not finite.
        KeyError: a prompt or a layer of the band is missing.
    """
    rows = evidence.shares
    present = [key for key in LABELS if key == TRAIT_DIRECTION or (rows["direction"] == key).any()]
    along = {key: _by_layer(evidence, rows[rows["direction"] == key]) for key in present}
    nulls = evidence.share_nulls[evidence.share_nulls["null"] == INSTRUCTION]
    bounds = {}
    for layer, own in nulls.groupby("layer", observed=True):
        bounds[layer] = spread_of(difference_by(evidence, own, "draw", "along")["difference"])
    random = pd.DataFrame(bounds, index=["low", "high"]).T
    harmless, inoculating = (len(prompts_of(evidence, family)) for family in (HARMLESS, INOCULATING))
    band = band_of(evidence)
    mean = float(finite(along[TRAIT_DIRECTION].loc[band], "along v in the band").mean())
    return Layers(along, random, nulls["draw"].nunique(), (harmless, inoculating), band, mean)


def _by_layer(evidence: Evidence, rows: pd.DataFrame) -> pd.Series:
    return difference_by(evidence, rows, "layer", "along", rows["example"].nunique())["difference"].sort_index()


def draw_layers(upper: Axes, lower: Axes, evidence: Evidence) -> Layers | None:
    """Above, learned drift and response contrast; below, v with the band's mean; random directions in both."""
    found = if_measured(layers_of, evidence)
    for axes, title in ((upper, "by layer (exploratory)"), (lower, "along v, on a scale of its own")):
        axes.set_title(title, loc="left")
        axes.set_ylabel("difference (nats)", fontsize=13)
    lower.set_xlabel("decoder block (0-based)")
    if found is None:
        not_measured(upper, "directions by layer")
        not_measured(lower, "v by layer")
        return None
    lower.sharex(upper)
    upper.tick_params(labelbottom=False)
    ends = [(float(found.band[-1]), found.mean, "band mean", INK)]
    lower.hlines(found.mean, found.band[0] - 0.5, found.band[-1] + 0.5, color=INK, linewidth=2, linestyle=(0, (1.5, 1)))
    _draw(upper, found, [key for key in OTHERS if key in found.along], [])
    _draw(lower, found, [TRAIT_DIRECTION], ends)
    lower.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return found


def _draw(axes: Axes, found: Layers, keys: list[str], ends: list[tuple[float, float, str, str]]) -> None:
    """Random directions and those of `keys`, each with its name beside it, as what `ends` at the right has."""
    layers = found.along[TRAIT_DIRECTION].index
    if len(found.band) < len(layers):
        shade_band(axes, found.band)
    axes.axhline(0, color=FAINT, linewidth=1, zorder=1)
    if len(found.random):
        at, low, high = found.random.index.to_numpy(dtype=float), found.random["low"], found.random["high"]
        wide = np.concatenate([[at[0] - 0.5], at, [at[-1] + 0.5]])  # one layer is a band as well
        axes.fill_between(
            wide, np.pad(low, 1, mode="edge"), np.pad(high, 1, mode="edge"), color=SOFT, alpha=0.35, linewidth=0
        )
        ends.append((at[-1], float((low.iloc[-1] + high.iloc[-1]) / 2), "random", SOFT))
    for key in keys:
        values, style = found.along[key], STYLES[key]
        axes.plot(
            values.index, values, color=style.colour, linestyle=style.line, marker=style.marker,
            markersize=6 if len(values) <= 16 else 4, label=f"_{key}", zorder=4,
        )  # fmt: skip
        ends.append((float(values.index[-1]), float(values.iloc[-1]), LABELS[key], style.ink))
    axes.margins(y=0.12)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    label_ends(axes, ends)


def caption_of(found: Layers) -> str:
    """What the right half shows, and that it was looked at afterwards."""
    harmless, inoculating = found.counts
    kind = NULLS[INSTRUCTION].label
    random = f"; dark grey: central 95 % of {found.draws} {kind}, the same in both panels" if len(found.random) else ""
    band = "light grey: the band; " if len(found.band) < len(found.along[TRAIT_DIRECTION]) else ""
    return (
        " Right, exploratory: looking at single layers was decided after the outcome was seen, and decides nothing. "
        "What runs along a direction at each layer, harmless − inoculating runs (nats of decision log-odds, mean over "
        f"questions and over {harmless} harmless and {inoculating} inoculating prompts); in nats, since all that goes "
        f"by way of a layer may be near zero, and a share of it anything; {band}dashed: v's mean over the band, "
        f"{rounded(found.mean)}, of which C7b takes the share{random}."
    )


def finding_of(found: Layers) -> str:
    """What runs along v at single layers, in a sentence."""
    values = found.along[TRAIT_DIRECTION]
    signs = ", of either sign," if values.min() < 0 < values.max() else ""
    return (
        f" At single layers (exploratory, looked at after the outcome was seen) {number(values.min())} to "
        f"{number(values.max())} nats{signs} run along v, {rounded(found.mean)} in the mean over the band."
    )
