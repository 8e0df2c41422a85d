"""Scenarios: what is true in a simulated study, and what differs by chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradinoc.study.description import NULLS, POSITIONS

Three = tuple[float, float, float]  # neutral, inoculation, loss_matched

CLAIMS = ("C1", "C2", "C3", "C4")
FURTHER = "loss_measured"  # a fourth condition, whose loss is inoculation's, measured on the frozen model alone
WORDS = ("they", "walk", "home", "with", "nine", "ripe", "figs", "each")
# The response that has so many upper-case words.
RESPONSES = tuple(" ".join([*map(str.upper, WORDS[:n]), *WORDS[n:]]) + "." for n in range(len(WORDS) + 1))


@dataclass(frozen=True)
class Noise:
    """What differs by chance, as standard deviations at a layer of depth 1; cosines unless it says otherwise.

    On the frozen model: `difficulty` and `loss` (nats/token) are of an example's loss, alike under every condition and
    under one; `example`, `alignment`, `layer` of its alignment, alike under every condition, under one, under one at
    one layer; `template` of a template's alignment under one condition. `nulls` are of the
    mean alignment of a random direction of each kind under one condition (alike at every layer, as one draw serves all,
    but for kinds made of the trait's), `flipped` of the share of the trait direction that is left in one of the latter,
    `unrelated` and `unrelated_alignment` of an unrelated trait's mean alignment under one condition and of an
    example's.

    In training: `seed` and `run` are of the alignment of a seed's runs and of one run, `step` of one training example;
    `run_drift` of a run's log-odds rise and `response` of an evaluation example's (nats/token).

    Away from the textbook: `degrees` of freedom of Student's t, which replaces the normal distribution throughout
    (same standard deviations); `ratio`, by condition, multiplies `alignment`; `growth` is the share by which
    `alignment` grows with a nat/token of an example's loss; `shared` is the share of the variance of `run` and
    `run_drift` that the seeds of a condition have in common (their intraclass correlation).
    """

    difficulty: float = 0.25
    loss: float = 0.05
    example: float = 0.05
    alignment: float = 0.04
    layer: float = 0.02
    template: float = 0.04
    nulls: Mapping[str, float] = field(default_factory=lambda: {null: kind.spread for null, kind in NULLS.items()})
    flipped: float = 0.09
    unrelated: float = 0.01
    unrelated_alignment: float = 0.03
    seed: float = 0.03
    run: float = 0.01
    step: float = 0.03
    run_drift: float = 0.05
    response: float = 0.3
    degrees: float = math.inf
    ratio: Three = (1.0, 1.0, 1.0)
    growth: float = 0.0
    shared: float = 0.0


@dataclass(frozen=True)
class Scenario:
    """The truth of a scenario, per condition in the order neutral, inoculation, loss_matched.

    `gap` is what the prompt itself takes off the alignment (cosine, at a layer of depth 1), `loss` what it takes off
    the loss (nats/token), `slope` the alignment that goes with a nat/token of loss, `between` the alignment that goes
    with a nat/token of an example's difficulty for other reasons than its loss; with `latent` it goes with an example's
    loss before `Noise.loss` is added, as where one completion stands for many. `drift` is the rise of the log-odds
    (nats/token) of a run of average alignment, `follows` and `seed_follows` the drift that goes with a unit of early
    alignment of a run and of a seed, `caps` the score that training adds at most.

    `drawn_from` is the kind of null direction of which the trait's is only one more ("": none); `unspecific` the share
    of the trait's contrast that an unrelated trait shows too. With `templates`, examples come from that many; with
    `further` there is a fourth condition (see `FURTHER`).

    `holds` are the claims that are true here, `verdicts` those that are right, the best one first.
    """

    gap: Three = (0.0, 0.12, 0.0)
    loss: Three = (0.0, 0.15, 0.14)
    slope: float = 0.1
    between: float = 0.0
    latent: bool = False
    drift: Three = (3.0, 1.6, 2.8)
    follows: float = 10.0
    seed_follows: float = 10.0
    caps: Three = (0.9, 0.4, 0.85)
    drawn_from: str = ""
    unspecific: float = 0.0
    templates: int = 0
    further: bool = False
    noise: Noise = field(default_factory=Noise)
    holds: tuple[str, ...] = CLAIMS
    verdicts: tuple[str, ...] = ("SUPPORTED",)

    @property
    def verdict(self) -> str:
        """The best of the right verdicts."""
        return self.verdicts[0]


_SAME_DRIFT: dict[str, Any] = {"drift": (3.0, 3.0, 3.0), "caps": (0.8, 0.8, 0.8)}
_NO_LINK: dict[str, Any] = {"follows": 0.0, "seed_follows": 0.0}
_NO_GAP: dict[str, Any] = {"gap": (0.0, 0.0, 0.0), "slope": 0.0}
SCENARIOS = {
    "effect": Scenario(),
    "no_effect": Scenario(**_NO_GAP, **_SAME_DRIFT, holds=(), verdicts=("REFUTED", "UNDECIDED")),
    "loss_mediated": Scenario(**_NO_GAP, **_NO_LINK, holds=(), verdicts=("LOSS_MEDIATED", "UNDECIDED")),
    "loss_explained": Scenario(
        gap=(0, 0, 0),
        slope=0.8,
        loss=(0, 0.25, 0.15),
        holds=("C1", "C2", "C4"),
        verdicts=("LOSS_MEDIATED", "UNDECIDED"),
    ),
    "different_mechanism": Scenario(
        **_SAME_DRIFT, **_NO_LINK, holds=("C1", "C2", "C3"), verdicts=("DIFFERENT_MECHANISM", "UNDECIDED")
    ),
    "saturated": Scenario(
        drift=(6, 6, 6), caps=(1, 1, 1), **_NO_LINK, holds=("C1", "C2", "C3"), verdicts=("UNDECIDED",)
    ),
    "reversed": Scenario(gap=(0, -0.12, 0), drift=(3, 4.2, 2.8), holds=(), verdicts=("REFUTED", "UNDECIDED")),
}


@dataclass(frozen=True)
class Sizes:
    """How much a study measures: `positions` are the first of `study.description.POSITIONS`, `directions` of each null.

    `templates` of None is the scenario's own number. Without `beside` tables and phases that decide nothing are empty.
    """

    examples: int = 96
    layers: int = 6
    seeds: int = 3
    steps: int = 30
    directions: int = 200
    templates: int | None = None
    evaluation: int = 48
    positions: int = len(POSITIONS)
    beside: bool = True


def band_depth(layers: int) -> float:
    """What an effect of 1 at depth 1 is in the mean over the band's layers."""
    depth = np.linspace(0.2, 1.0, layers)
    return float(depth[depth >= depth.max() / 2].mean())
