"""What holds of every figure: it says what it measures, follows its data, and is drawn of poor data, too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from fixtures.diverged import diverged
from fixtures.figures import MANY, RULES, drawn, of_colour, panels, world
from gradinoc.claims.evidence.tables import COLUMNS, SCORED, Evidence
from gradinoc.claims.rules.verdict import RULES_OF
from gradinoc.report.figures import FIGURES
from gradinoc.report.figures.style import save_figure
from gradinoc.report.page import OWN_SECTIONS
from gradinoc.report.wording import NOT_MEASURED
from gradinoc.study.prompts.family import Family

CORE = {"inoculating": 1, "harmless": 1, "opposite": 0, "trained": (1, 1, 0), "rephrased": False}
BESIDE = ("training_nulls", "cells", "matrix", "steering", "steering_losses", "checkpoints", "unrelated")


def degenerate(evidence: Evidence) -> Evidence:
    """Scores all equal, a band of one layer, random directions that do not vary, losses all equal."""
    drift = evidence.drift.copy()
    drift.loc[drift["measure"].isin(SCORED), "value"] = 1.0
    return replace(
        evidence,
        layers=evidence.layers.assign(in_band=evidence.layers["layer"] == 2),
        drift=drift,
        nulls=evidence.nulls.assign(alignment=0.0),
        responses=evidence.responses.assign(score=1.0),
        alignments=evidence.alignments.assign(loss=2.0),
        losses=evidence.losses.assign(trait_loss=2.0, ordinary_loss=2.0),
        elicitation=evidence.elicitation.assign(log_odds=-3.0),
    )


def emptied(evidence: Evidence, *tables: str) -> Evidence:
    """The study without the rows of some tables."""
    return replace(evidence, **{name: getattr(evidence, name).iloc[:0] for name in tables})


def blank(evidence: Evidence) -> Evidence:
    """The study with every measured number NaN."""
    tables = {name: table for name, table in evidence.tables.items() if name != "prompts"}
    nothing = {name: dict.fromkeys(table.select_dtypes("float").columns, np.nan) for name, table in tables.items()}
    return replace(evidence, **{name: table.assign(**nothing[name]) for name, table in tables.items()})


def with_holes(evidence: Evidence) -> Evidence:
    """The study with a response, sampled or greedy, that could not be scored."""
    drift, responses = evidence.drift.copy(), evidence.responses.copy()
    for measure in SCORED:
        drift.loc[drift.index[drift["measure"] == measure][-1], "value"] = np.nan
    responses.loc[responses.index[-1], "score"] = np.nan
    return replace(evidence, drift=drift, responses=responses)


def of_ones_own(evidence: Evidence) -> Evidence:
    """The study with one prompt of no family and with a long name, and a trait that is not ALL CAPS."""
    name = "a_long_name_of_a_prompt_of_ones_own_xxx"
    tables = {}
    for key, table in evidence.tables.items():
        prompts = [each for each in ("condition", "evaluation") if each in table]
        tables[key] = table.assign(**{each: table[each].astype(str).replace("anti_00", name) for each in prompts})
    rows = tables["prompts"]
    tables["prompts"] = rows.assign(family=rows["family"].where(rows["condition"] != name, str(Family.OTHER)))
    planned = tuple((condition.replace("anti_00", name), seed) for condition, seed in evidence.planned_runs)
    trait = replace(evidence.trait, name="pirate_speech", score_name="pirate rate")
    return replace(evidence, **tables, planned_runs=planned, trait=trait)


POOR = {
    "three prompts, one seed": lambda: world(**CORE, seeds=1, beside=False),
    "ten seeds": lambda: world(**CORE, seeds=10),
    "24 trained prompts": lambda: world(**MANY),
    "a prompt of one's own": lambda: of_ones_own(world()),
    "without what version 1 had not": lambda: emptied(world(), *BESIDE),
    "responses that could not be scored": lambda: with_holes(world()),
    "a run that diverged": lambda: diverged(world(), "inoculation", 0),
    "nothing varies": lambda: degenerate(world("ceiling", seeds=2)),
    "nothing measured": lambda: emptied(world(), *(name for name in COLUMNS if name != "prompts")),
    "all missing": lambda: blank(world()),
}


def fingerprint(figure: Figure) -> tuple[np.ndarray, ...]:
    """Every point, line and outline drawn, in order."""
    shapes = []
    for axes in figure.axes:
        shapes += [line.get_xydata() for line in axes.lines]
        shapes += [np.asarray(part.get_offsets()) for part in axes.collections]
        shapes += [path.vertices for part in axes.collections for path in part.get_paths()]
        shapes += [np.ma.filled(part.get_array(), 0) for part in axes.collections if isinstance(part, QuadMesh)]
        shapes += [patch.get_path().vertices for patch in axes.patches]
    return tuple(np.asarray(part, dtype=float) for part in shapes)


def unlike(one: Figure, other: Figure) -> bool:
    """Whether two figures draw different things."""
    first, second = fingerprint(one), fingerprint(other)
    return len(first) != len(second) or any(
        a.shape != b.shape or not np.allclose(a, b, equal_nan=True) for a, b in zip(first, second, strict=True)
    )


def test_figures_have_their_names_and_a_place() -> None:
    """The plan's seven keep their numbers; each figure stands in a section of the page, and belongs to findings."""
    plan = {
        "plot1_projection_distributions", "plot2_alignment_by_layer", "plot3_loss_by_condition",
        "plot4_trait_against_random", "plot5_projection_shift", "plot6_score_shift", "plot7_alignment_against_drift",
    }  # fmt: skip
    assert set(FIGURES) > plan
    assert all(figure.shows[0] in {*RULES_OF, *OWN_SECTIONS} for figure in FIGURES.values())
    assert all({*figure.shows[1:]} <= set(RULES_OF) for figure in FIGURES.values())
    shown = {key for figure in FIGURES.values() for key in figure.shows}
    assert {"C1", "C2", "C3", "C4", "C6", "G1", "G5", "G8a", "G8b", "G8c", "G10", "C7a", "C7b", "C7c"} <= shown


@pytest.mark.parametrize("name", FIGURES)
def test_axis_says_what_it_measures(name: str, evidence: Evidence) -> None:
    """Each figure has a title; a numeric axis has a label, with its unit in brackets where it has one."""
    figure = FIGURES[name].draw(evidence, RULES).figure
    assert figure.get_suptitle()
    labels = [label for axes in figure.axes for label in (axes.get_xlabel(), axes.get_ylabel()) if label]
    assert any("(" in label for label in labels), f"no unit in {labels}"
    for axes in figure.axes:
        shares = not axes.xaxis.get_tick_params()["labelbottom"] and not axes.xaxis.get_tick_params()["labeltop"]
        assert shares or axes.get_xlabel() or axes.get_ylabel(), "a panel without a label"


@pytest.mark.parametrize("name", FIGURES)
def test_figure_follows_the_data(name: str, evidence: Evidence) -> None:
    """Other data, another picture; the same data, the same picture."""
    draw, other = FIGURES[name].draw, world("no_effect", seed=8)
    assert unlike(draw(evidence, RULES).figure, draw(other, RULES).figure)
    assert not unlike(draw(evidence, RULES).figure, draw(evidence, RULES).figure)


@pytest.mark.parametrize("study", POOR)
def test_poor_data_are_drawn_without_a_warning(study: str, tmp_path) -> None:
    """Warnings are errors here: every figure is drawn and told, whatever is constant, missing or many."""
    made = POOR[study]()
    for name, figure in FIGURES.items():
        found = figure.draw(made, RULES)
        found.figure.savefig(tmp_path / "figure.png", dpi=40)
        said = found.caption + found.finding
        assert "nan" not in said.lower()
        assert "not measured to" not in said
        texts = [text.get_text() for axes in found.figure.axes for text in axes.texts]
        if study in ("nothing measured", "all missing"):
            assert any("not measured" in text for text in texts), f"{name}: an empty panel that does not say why"


def test_findings_without_data_say_so() -> None:
    """All in the same words, without a number."""
    made = POOR["nothing measured"]()
    told = [figure.draw(made, RULES) for figure in FIGURES.values()]
    assert {found.finding for found in told} == {found.caption for found in told} == {NOT_MEASURED}
    assert all(found.table.empty for found in told)


def test_same_data_give_the_same_svg(evidence: Evidence, tmp_path) -> None:
    """Byte for byte, so that a changed file means a changed result; nothing else is left in the folder."""
    name = "plot7_alignment_against_drift"  # the names of its points have places of their own
    files = [
        save_figure(FIGURES[name].draw(evidence, RULES).figure, tmp_path / folder, "plot") for folder in ("one", "two")
    ]
    assert files[0][1].read_bytes() == files[1][1].read_bytes()
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"plot.png", "plot.svg"}


def test_what_another_family_does_is_in_no_family_s_mean(evidence: Evidence) -> None:
    """Rephrased and opposite prompts are drawn, and leave every mean of inoculating and harmless ones alone."""
    rows = evidence.drift["condition"].isin(["rephrased_harmless", "rephrased_inoculation", "anti_00"])
    other = replace(evidence, drift=evidence.drift.assign(value=evidence.drift["value"] + 5.0 * rows))
    before, after = (drawn("score_shift", study).figure.axes[0] for study in (evidence, other))
    means = [[part.get_paths()[0].get_extents().intervalx for part in axes.collections] for axes in (before, after)]
    assert np.allclose(means[0], means[1])
    assert after.get_xlim()[1] > before.get_xlim()[1] + 2


def test_missing_tables_are_named(evidence: Evidence) -> None:
    """What a study does not have is said to be missing where it would stand, and the rest is drawn."""
    study = emptied(evidence, *BESIDE)
    for name in ("matrix", "specification_curve", "steering"):
        assert drawn(name, study).finding == NOT_MEASURED
    assert "unrelated traits: the largest" not in drawn("trait_against_random", study).caption
    assert of_colour(panels("dose_curves", study)[0], Family.HARMLESS, 2.9), "drift is the last dose"
    assert not unlike(drawn("projection_shift", study).figure, drawn("projection_shift", evidence).figure)


def test_table_of_a_figure_holds_what_is_drawn_unrounded(evidence: Evidence) -> None:
    """Numbers as measured; where an effect is drawn with an interval, its ends stand beside it."""
    for name, figure in FIGURES.items():
        table = figure.draw(evidence, RULES).table
        for column in [each for each in table if str(each).endswith("estimate")]:
            low, high = (column.replace("estimate", end) for end in ("low", "high"))
            known = table[[low, column, high]].dropna()
            assert len(known), name
            assert (known[low] <= known[column]).all(), name
            assert (known[column] <= known[high]).all(), name
            assert not np.allclose(known[column], known[column].round(3), rtol=0, atol=1e-9), name
