"""Plot 13: alignment minus inoculation's, in training."""

from __future__ import annotations

import pandas as pd

from gradinoc.claims.measures import minus_inoculation
from gradinoc.claims.tables import Evidence
from gradinoc.report.figures.alignment_over_training import draw_steps, seeds_title
from gradinoc.report.figures.study_figure import Drawn, StudyFigure
from gradinoc.report.figures.style import height_beside, new_figure, not_measured, styled
from gradinoc.report.numbers import mean_interval, training_course
from gradinoc.report.wording import NOT_MEASURED, between, estimated, listed, rounded, side
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules


def training_differences(evidence: Evidence, points: int = 25) -> pd.DataFrame:
    """Alignment minus inoculation's, paired by seed and step: index (seed, step), a column for each other run.

    Over equal stretches of steps if there are more than `points`, as in `training_course`.
    """
    return minus_inoculation(training_course(evidence, points)).dropna(how="all")


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Alignment minus inoculation's in training, paired by seed and step: thin a seed, thick the mean over seeds."""
    differences = training_differences(evidence)
    figure = new_figure("Difference to inoculation, in training", height_beside(evidence.trained))
    axes = figure.add_subplot()
    axes.set(xlabel="optimiser step", ylabel="alignment minus\ninoculation's (cosine)")
    if differences.empty:
        not_measured(axes, "training")
        return Drawn(figure)
    draw_steps(
        axes, evidence,
        {str(name): differences[name].dropna().unstack("seed") for name in differences},  # noqa: PD010 - of a series
    )  # fmt: skip
    axes.set_title(seeds_title(differences.index.get_level_values("seed").nunique()), loc="left")
    a_step_each = len(evidence.training) + 1
    by_seed = training_differences(evidence, points=a_step_each).groupby("seed").mean()
    means = {str(name): mean_interval(by_seed[name], unit="seeds") for name in by_seed}
    caption = (
        f"Band alignment minus inoculation's (cosine) of the training batches, paired by seed and optimiser step, so "
        f"that both sides saw the same examples: thin a seed, thick the mean over seeds, shaded from three seeds on "
        f"its 95 % t interval (df = seeds − 1). Mean over all steps: "
        f"{listed((f'{name}:', estimated(mean)) for name, mean in means.items())}."
    )
    if NEUTRAL not in means:
        return Drawn(figure, caption, NOT_MEASURED)
    mean = means[NEUTRAL]
    finding = (
        f"In training, alignment is {side(mean)} under inoculation than under neutral: neutral minus inoculation "
        f"{rounded(mean.estimate)} ({between(mean)}, n = {mean.n} seeds)."
    )
    return Drawn(figure, caption, finding)


FIGURE = StudyFigure("plot13_training_difference", ("C1",), draw)
