"""The figures show the data they are given, look the same wherever a condition appears, and survive poor data."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from fixtures.worlds import simulate
from gradinoc.analysis import FIGURES, caption, save_figure
from gradinoc.analysis.style import RC, look, spread
from gradinoc.analysis.summaries import contrasts, correlation, early_and_drift, fit_line, mean_interval, null_effects
from gradinoc.contrasts import drift_by_run, early_alignment, null_contrasts, per_example
from gradinoc.evidence import Evidence
from gradinoc.statistics import paired_effect

PER_CONDITION = ("alignments", "nulls", "training", "training_nulls", "drift", "responses", "runs")


def world(name: str = "effect", seeds: int = 3) -> Evidence:
    """A small simulated study."""
    return simulate(name, np.random.default_rng(7), examples=24, layers=4, seeds=seeds, steps=10, directions=100)


def with_condition(evidence: Evidence, name: str, like: str = "loss_matched") -> Evidence:
    """The study with one condition more, whose tables are those of another."""
    grown = {}
    for table in PER_CONDITION:
        frame = getattr(evidence, table)
        grown[table] = pd.concat([frame, frame[frame["condition"] == like].assign(condition=name)], ignore_index=True)
    return replace(evidence, conditions=(*evidence.conditions, name), **grown)


def degenerate(evidence: Evidence) -> Evidence:
    """Caps rates all equal, a band of one layer, and null directions that do not vary."""
    layers = evidence.layers.assign(in_band=evidence.layers["layer"] == 2)
    drift = evidence.drift.copy()
    drift.loc[drift["measure"].str.startswith("caps"), "value"] = 1.0
    nulls, responses = evidence.nulls.assign(alignment=0.0), evidence.responses.assign(caps_rate=1.0)
    return replace(evidence, layers=layers, drift=drift, nulls=nulls, responses=responses)


POOR = {
    "one seed": lambda: world(seeds=1),
    "five seeds": lambda: world(seeds=5),
    "four conditions": lambda: with_condition(world(), "irrelevant_instruction"),
    "nothing varies": lambda: degenerate(world("saturated", seeds=2)),
    "nothing measured": lambda: replace(world(), **{name: table.iloc[:0] for name, table in world().tables.items()}),
    "all missing": lambda: replace(world(), **{name: blank(table) for name, table in world().tables.items()}),
}


def blank(table: pd.DataFrame) -> pd.DataFrame:
    """The table with every measured number NaN."""
    measured = table.select_dtypes("float").columns
    return table.assign(**dict.fromkeys(measured, float("nan")))


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """One study in which inoculation works."""
    return world()


def fingerprint(figure: Figure) -> tuple[np.ndarray, ...]:
    """Every point, line and outline drawn, in order."""
    drawn = []
    for axes in figure.axes:
        drawn += [line.get_xydata() for line in axes.lines]
        drawn += [np.asarray(part.get_offsets()) for part in axes.collections]
        drawn += [path.vertices for part in axes.collections for path in part.get_paths()]
        drawn += [patch.get_path().vertices for patch in axes.patches]
    return tuple(np.asarray(part, dtype=float) for part in drawn)


def unlike(one: Figure, other: Figure) -> bool:
    """Whether two figures draw different things."""
    first, second = fingerprint(one), fingerprint(other)
    return len(first) != len(second) or any(
        a.shape != b.shape or not np.allclose(a, b, equal_nan=True) for a, b in zip(first, second, strict=True)
    )


def test_the_nine_figures_have_their_names() -> None:
    """Plots 1 to 9, in order: the README and the report refer to these files."""
    assert [name.partition("_")[0] for name in FIGURES] == [f"plot{number}" for number in range(1, 10)]


@pytest.mark.parametrize("name", FIGURES)
def test_every_axis_says_what_it_measures(name: str, evidence: Evidence) -> None:
    """Each figure has a title; a numeric axis has a label, with its unit in brackets where it has one."""
    figure = FIGURES[name](evidence)
    assert figure.get_suptitle()
    for axes in figure.axes:
        numeric = [axes.get_xlabel()] + ([axes.get_ylabel()] if axes.get_ylabel() else [])
        assert all(numeric), f"{name}: an axis without a label"
        assert any("(" in label or "step" in label for label in numeric), f"{name}: no unit in {numeric}"


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_follows_the_data(name: str, evidence: Evidence) -> None:
    """Other data, another picture; the same data, the same picture."""
    other = simulate("no_effect", np.random.default_rng(8), examples=24, layers=4, seeds=3, steps=10, directions=100)
    assert unlike(FIGURES[name](evidence), FIGURES[name](other))
    assert not unlike(FIGURES[name](evidence), FIGURES[name](evidence))


@pytest.mark.parametrize("name", ["plot2_alignment_by_layer", "plot9_alignment_over_training"])
def test_a_line_is_drawn_for_each_condition(name: str, evidence: Evidence) -> None:
    """One more condition is one more line in a colour of its own."""
    colours = [
        {to_rgba(line.get_color()) for line in FIGURES[name](study).axes[0].lines if len(line.get_xdata()) > 2}
        for study in (evidence, with_condition(evidence, "sham"))
    ]
    assert [len(found) for found in colours] == [3, 4]


@pytest.mark.parametrize("name", ["plot5_projection_shift", "plot7_alignment_against_drift"])
@pytest.mark.parametrize("seeds", [1, 5])
def test_a_point_is_drawn_for_each_run(name: str, seeds: int) -> None:
    """Three conditions times the seeds."""
    axes = FIGURES[name](world(seeds=seeds)).axes[0]
    scattered = sum(len(part.get_offsets()) for part in axes.collections if name.startswith("plot5"))
    single = sum(len(line.get_xdata()) == 1 for line in axes.lines if name.startswith("plot7"))
    assert scattered + single == 3 * seeds


def test_a_condition_looks_the_same_in_every_study() -> None:
    """The plan's three have fixed looks; more conditions do not change them, and get looks of their own."""
    few, many = ("neutral", "inoculation", "loss_matched"), ("sham", "neutral", "other", "loss_matched", "inoculation")
    assert all(look(name, few) == look(name, many) for name in few)
    assert look("sham", ("sham", "neutral")) == look("sham", ("neutral", "inoculation", "sham"))
    looks = [look(name, many) for name in many]
    for trait in zip(*looks, strict=True):
        assert len(set(map(str, trait))) == len(many), f"two conditions share one of {trait}"


def test_names_of_conditions_can_be_read_on_white() -> None:
    """Contrast of the plan's three at least 4.5 to 1 (WCAG 2.2, 1.4.3)."""
    for name in ("neutral", "inoculation", "loss_matched"):
        channels = np.array(to_rgba(look(name, ()).ink)[:3])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5, name


@pytest.mark.parametrize("study", POOR)
def test_poor_data_are_drawn_without_a_warning(study: str, tmp_path) -> None:
    """Warnings are errors here: every figure is drawn and captioned, whatever is constant, missing or many."""
    evidence = POOR[study]()
    for name, plot in FIGURES.items():
        figure = plot(evidence)
        figure.savefig(tmp_path / "figure.png", dpi=40)
        assert "nan" not in caption(name, evidence)
        texts = [text.get_text() for axes in figure.axes for text in axes.texts]
        if study == "nothing measured":
            assert any("not measured" in text for text in texts), f"{name}: an empty panel that does not say why"


def test_the_same_data_give_the_same_svg(evidence: Evidence, tmp_path) -> None:
    """Byte for byte, so that a changed file means a changed result."""
    name = "plot4_trait_against_random"
    files = [save_figure(FIGURES[name](evidence), tmp_path / folder, name) for folder in ("one", "two")]
    assert files[0][1].read_bytes() == files[1][1].read_bytes()
    assert files[0][0].stat().st_size > 10_000
    assert [path.name for path in (tmp_path / "one").iterdir() if path.name not in {f"{name}.png", f"{name}.svg"}] == []


def test_drawing_leaves_no_settings_behind(evidence: Evidence, tmp_path) -> None:
    """Matplotlib's settings are the caller's again, and no setting is misspelt."""
    before = dict(mpl.rcParams)
    save_figure(FIGURES["plot3_loss_by_condition"](evidence), tmp_path, "plot3")
    assert dict(mpl.rcParams) == before
    assert set(RC) <= set(mpl.rcParams)


def test_a_caption_holds_the_numbers_of_its_figure(evidence: Evidence) -> None:
    """The paired loss difference, as the claims' own statistics find it, is in the caption of plot 3."""
    wide = evidence.alignments.pivot_table(index="example", columns="condition", values="loss")
    effect = paired_effect(wide["inoculation"], wide["neutral"], "loss", "examples")
    words = f"inoculation {effect.estimate:.3f} ({effect.low:.3f} to {effect.high:.3f}, n = 24 examples)"
    assert words in caption("plot3_loss_by_condition", evidence)


def test_figures_show_the_numbers_that_decide(evidence: Evidence) -> None:
    """Contrasts, null effects, early alignment and drift are those from which the claims are judged."""
    means = per_example(evidence)
    drawn = contrasts(evidence)
    assert np.allclose(drawn["neutral"], means["neutral"] - means["inoculation"])
    assert np.allclose(null_effects(evidence)["loss_matched"], null_contrasts(evidence, "isotropic", "loss_matched"))
    early, drift = early_alignment(evidence, 0.2), drift_by_run(evidence, "log_odds")
    for condition, seed, x, y in early_and_drift(evidence, "log_odds")[
        ["condition", "seed", "early", "shift"]
    ].to_numpy():
        assert (x, y) == pytest.approx((early.loc[seed, condition], drift.loc[seed, condition]))


def test_the_fitted_line_and_its_interval_are_least_squares() -> None:
    """Against NumPy's polynomial fit, and its interval is narrowest at the mean of x."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=12)
    y = 2 * x + rng.normal(size=12)
    line = fit_line(x, y)
    assert line is not None
    assert np.allclose(line.y, np.polyval(np.polyfit(x, y, 1), line.x))
    assert abs(line.x[np.argmin(line.high - line.low)] - x.mean()) < np.ptp(x) / 50
    assert correlation(x, y)[0] == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert fit_line([1, 1, 1], [1, 2, 3]) is None


def test_a_mean_of_one_value_has_no_interval() -> None:
    """One seed says where, not how surely."""
    mean = mean_interval([0.5, float("nan")])
    assert (mean.estimate, mean.n) == (0.5, 1)
    assert np.isnan(mean.low)


def test_names_beside_lines_do_not_overlap() -> None:
    """Labels that would coincide move apart by the gap asked for, and keep their order."""
    placed = spread([0.1, 0.12, 0.11, 0.9], 0.1)
    assert all(high - low >= 0.1 - 1e-12 for low, high in pairwise(sorted(placed)))
    assert np.argsort(placed).tolist() == [0, 2, 1, 3]
