"""The figures of a study, each drawn from its tables alone."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from gradinoc.analysis.captions import caption
from gradinoc.analysis.frozen import (
    plot_alignment_by_layer,
    plot_loss_by_condition,
    plot_projection_distributions,
    plot_trait_against_random,
)
from gradinoc.analysis.style import save_figure
from gradinoc.analysis.trained import (
    plot_alignment_against_drift,
    plot_alignment_over_training,
    plot_caps_rate_shift,
    plot_projection_against_caps_rate,
    plot_projection_shift,
)
from gradinoc.evidence import Evidence

FIGURES: dict[str, Callable[[Evidence], Figure]] = {
    "plot1_projection_distributions": plot_projection_distributions,
    "plot2_alignment_by_layer": plot_alignment_by_layer,
    "plot3_loss_by_condition": plot_loss_by_condition,
    "plot4_trait_against_random": plot_trait_against_random,
    "plot5_projection_shift": plot_projection_shift,
    "plot6_caps_rate_shift": plot_caps_rate_shift,
    "plot7_alignment_against_drift": plot_alignment_against_drift,
    "plot8_projection_against_caps_rate": plot_projection_against_caps_rate,
    "plot9_alignment_over_training": plot_alignment_over_training,
}

__all__ = ["FIGURES", "caption", "save_figure", *(plot.__name__ for plot in FIGURES.values())]
