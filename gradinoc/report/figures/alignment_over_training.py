"""Plot 9: alignment of the training batches, step by step."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.tables import Evidence
from gradinoc.report.figures.study_figure import Drawn, StudyFigure
from gradinoc.report.figures.style import (
    FAINT,
    Look,
    height_beside,
    label_ends,
    look,
    new_figure,
    not_measured,
    styled,
    wrapped,
)  # fmt: skip
from gradinoc.report.numbers import mean_interval, training_course
from gradinoc.report.wording import by_condition, listed
from gradinoc.study.rules import Rules


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Band alignment by optimiser step: thin a run, thick the mean over seeds with its 95 % t interval."""
    course = training_course(evidence)
    figure = new_figure("Alignment over training", height_beside(evidence.trained))
    axes = figure.add_subplot()
    axes.set(xlabel="optimiser step", ylabel="alignment (cosine)")
    if course.empty:
        not_measured(axes, "training")
        return Drawn(figure)
    runs = {name: course[name].dropna() for name in evidence.trained}
    draw_steps(axes, evidence, {name: rows.unstack("seed") for name, rows in runs.items()})  # noqa: PD010 - of a series
    seeds = course.index.get_level_values("seed").nunique()
    axes.set_title(seeds_title(seeds), loc="left")
    at = {name: rows.groupby("step").mean() for name, rows in runs.items() if len(rows)}
    ends = listed((name, f"from {means.iloc[0]:.3f} to {means.iloc[-1]:.3f}") for name, means in at.items())
    caption = (
        f"Band alignment (cosine) of the training batches by optimiser step: thin a run, thick the mean over "
        f"seeds (n = {seeds}), shaded from three seeds on its 95 % t interval. {ends}."
    )
    means = by_condition((name, rows.mean()) for name, rows in runs.items() if len(rows))
    return Drawn(figure, caption, f"Mean alignment of the training batches over all steps: {means}.")


def draw_steps(axes: Axes, evidence: Evidence, courses: dict[str, pd.DataFrame]) -> None:
    """A line a run and a thick one a condition with its interval, named at its end; `courses` are steps by seeds."""
    axes.axhline(0, color=FAINT, linewidth=1)
    ends = [
        _draw_course(axes, wide, condition, look(condition, evidence.conditions))
        for condition, wide in courses.items()
        if len(wide)
    ]
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    label_ends(axes, ends)


def _draw_course(axes: Axes, wide: pd.DataFrame, condition: str, style: Look) -> tuple[float, float, str, str]:
    """Draw steps by seeds, the mean over seeds and its interval; where the mean ends, its name and ink."""
    for seed in wide:
        axes.plot(wide.index, wide[seed], color=style.colour, alpha=0.35, linewidth=1)
    means = [mean_interval(row) for row in wide.to_numpy(dtype=float)]
    if wide.shape[1] > 2:  # two seeds' t interval is 13 standard errors wide: it would hide the lines
        axes.fill_between(
            wide.index, [mean.low for mean in means], [mean.high for mean in means],
            color=style.colour, alpha=0.15, linewidth=0,
        )  # fmt: skip
    axes.plot(wide.index, [mean.estimate for mean in means], color=style.colour, linestyle=style.line)
    return float(wide.index[-1]), means[-1].estimate, wrapped(condition), style.ink


def seeds_title(count: int) -> str:
    """How many seeds a panel shows, and its interval where one is drawn."""
    return f"{count} seed{'s' * (count > 1)}{', 95 % interval' * (count > 2)}"


FIGURE = StudyFigure("plot9_alignment_over_training", ("C1",), draw)
