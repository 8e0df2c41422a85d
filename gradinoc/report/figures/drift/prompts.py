"""Plot 16: elicitation of every prompt against its alignment and against the drift of models trained under it."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.c4 import elicitation
from gradinoc.claims.evidence.measures import drift_by_question, per_example
from gradinoc.claims.evidence.tables import EXPECTED, Evidence
from gradinoc.report.figures.lettering import fitted, score_label
from gradinoc.report.figures.prompts.families import HOLLOW, PLANNED, family_key, family_table, shade_random
from gradinoc.report.figures.prompts.points import draw_prompts, extremes, name_points
from gradinoc.report.figures.study_figure import Drawn, StudyFigure
from gradinoc.report.figures.style import FAINT, HEIGHT, PANEL, new_figure, not_measured, styled, up_to
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED, rounded
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules


def measures_of(evidence: Evidence) -> dict[str, dict[str, float]]:
    """Elicitation, frozen alignment and drift of the expected score: prompt -> value, as C4 and C1 rest on them."""
    found: dict[str, dict[str, float]] = {}
    elicited = if_measured(elicitation, evidence)
    found["elicitation"] = {name: effect.estimate for name, effect in (elicited or {}).items()}
    alignment, drift = if_measured(per_example, evidence), if_measured(drift_by_question, evidence, EXPECTED)
    found["alignment"] = {} if alignment is None else alignment.mean().to_dict()
    found["drift"] = {} if drift is None else drift.mean().groupby(level="condition").mean().to_dict()
    return found


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Two panels over elicitation: alignment on the frozen model, and drift; a point a prompt, hollow if untrained."""
    figure = new_figure("Prompts: elicitation, alignment, drift", 2 * HEIGHT)
    upper, lower = figure.subplots(2, 1, sharex=True)
    found = measures_of(evidence)
    label = fitted(f"drift of {score_label(evidence.trait)}", up_to(PANEL))
    upper.set_ylabel("alignment, frozen model\n(cosine)")
    lower.set(xlabel="elicitation: decision log-odds − neutral's (nats)", ylabel=f"{label}\n(fraction)")
    lower.xaxis.label.set_fontsize(13.5)
    x, untrained = found["elicitation"], [name for name in evidence.conditions if name not in evidence.trained]
    for axes, key in ((upper, "alignment"), (lower, "drift")):
        _draw_panel(axes, evidence, x, found[key], untrained if key == "alignment" else [])
    if not x or not found["alignment"]:
        return Drawn(figure)
    beside = ({"not trained": HOLLOW} if untrained else {}) | shade_random(upper, evidence)
    family_key(upper, evidence, evidence.conditions, beside)
    for axes, key in ((upper, "alignment"), (lower, "drift")):
        name_points(axes, evidence, x, found[key], [*PLANNED, *extremes(found[key]), *extremes(x)])
    return Drawn(figure, _caption(evidence), _finding(evidence, found), _table(evidence, found))


def _draw_panel(axes: Axes, evidence: Evidence, x: dict[str, float], y: dict[str, float], hollow: list[str]) -> None:
    if not x or not y:
        not_measured(axes, "elicitation" if not x else "alignment or drift")
        return
    axes.axhline(0, color=FAINT, linewidth=1)
    axes.axvline(0, color=FAINT, linewidth=1)
    draw_prompts(axes, evidence, x, y, hollow)
    axes.margins(0.1, 0.14)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _table(evidence: Evidence, found: dict[str, dict[str, float]]) -> pd.DataFrame:
    """A row a measured prompt: elicitation, alignment, drift (none where it was not trained), tokens."""
    tokens = evidence.prompts.set_index("condition")["tokens"].to_dict()
    return family_table(evidence, evidence.conditions, tokens=tokens, **found)


def _caption(evidence: Evidence) -> str:
    trained = [name for name in evidence.conditions if name in evidence.trained]
    return (
        f"A point a prompt, coloured and shaped by family. Elicitation: how far a prompt raises the decision log-odds "
        f"of the frozen model above neutral's (nats). Above: band alignment on the frozen model (cosine), "
        f"{len(evidence.conditions)} measured prompts, hollow those that nothing was trained under; triangles show the "
        f"spread of harmless ones, grey the central 95 % of alignment along instruction contrasts. Below: drift of the "
        f"expected score under the neutral prompt (fraction) of models trained under {len(trained)} of them, mean over "
        f"seeds."
    )


def _finding(evidence: Evidence, found: dict[str, dict[str, float]]) -> str:
    parts = []
    for family, words in ((Family.HARMLESS, "harmless"), (Family.INOCULATION, "inoculating")):
        told = []
        for key, unit in (("elicitation", "nats of elicitation"), ("alignment", "cosine"), ("drift", "of drift")):
            values = [found[key][name] for name in evidence.family(family, list(found[key]))]
            if values:
                told.append(f"{rounded(min(values))} to {rounded(max(values))} {unit}")
        if told:
            parts.append(f"{words} prompts range over {', '.join(told)}")
    return f"{'; '.join(parts).capitalize()}." if parts else NOT_MEASURED


FIGURE = StudyFigure("plot16_prompts", ("prompts", "C4", "C1"), draw)
