"""Families of prompts can be told apart, by colour and without it."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from fixtures.figures import linear_rgb, world
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.report.figures.prompts.families import in_order, look
from gradinoc.report.figures.style import LOOKS, spread
from gradinoc.study.prompts.family import Family


def test_families_differ_in_colour_marker_and_line() -> None:
    """So that grey print and colour blindness leave them apart, none left out; a prompt looks like its family."""
    assert set(LOOKS) == set(Family)
    for trait in zip(*LOOKS.values(), strict=True):
        assert len(set(map(str, trait))) == len(LOOKS), f"two families share one of {trait}"
    study = world()
    assert look(study, "harmless_03") == look(study, "rephrased_harmless") == LOOKS[Family.HARMLESS]
    assert look(study, "unheard_of") == LOOKS[Family.OTHER]


SIGHT = {  # linear sRGB as a reader sees it: Machado, Oliveira and Fernandes (2009), severity 1
    "full": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.mark.parametrize("sight", SIGHT)
def test_families_differ_in_colour_to_the_colour_blind(sight: str) -> None:
    """At least 15 apart in CIELAB (1976), where 2 is just visible; the orange of hints and vermilion were 1 apart."""
    colours = [_lab(np.clip(np.array(SIGHT[sight]) @ linear_rgb(style.colour), 0, 1)) for style in LOOKS.values()]
    assert min(np.linalg.norm(one - other) for one, other in combinations(colours, 2)) >= 15
    assert np.linalg.norm(_lab(np.array([1.0, 1.0, 1.0])) - [100, 0, 0]) < 0.1, "white is white"


def _lab(linear: np.ndarray) -> np.ndarray:
    """CIELAB under D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratios = to_xyz @ linear / (to_xyz @ np.ones(3))
    x, y, z = np.where(ratios > 216 / 24389, np.cbrt(ratios), (24389 / 27 * ratios + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_names_of_families_can_be_read_on_white() -> None:
    """Contrast at least 4.5 to 1 (WCAG 2.2, 1.4.3)."""
    for family, style in LOOKS.items():
        assert 1.05 / (linear_rgb(style.ink) @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5, family


def test_prompts_stand_family_by_family(evidence: Evidence) -> None:
    """Neutral, inoculating, harmless, opposite, others; rephrased ones last in their family."""
    order = in_order(evidence, reversed(evidence.trained))
    families = [look(evidence, name).colour for name in order]
    first = (Family.NEUTRAL, Family.INOCULATION, Family.HARMLESS, Family.ANTI)
    assert [families.index(LOOKS[family].colour) for family in first] == [0, 1, 5, 9]
    assert order.index("rephrased_inoculation") == 4


def test_names_beside_lines_do_not_overlap() -> None:
    """Labels that would coincide move apart by the gap asked for, and keep their order."""
    placed = spread([0.1, 0.12, 0.11, 0.9], 0.1)
    ordered = sorted(placed)
    assert all(high - low >= 0.1 - 1e-12 for low, high in pairwise(ordered))
    assert np.argsort(placed).tolist() == [0, 2, 1, 3]
    placed = spread([0.0, 0.0, 0.0], [0.1, 0.3, 0.1])  # a label of three lines between labels of one
    assert np.diff(placed) == pytest.approx([0.2, 0.2])
