"""Scenarios: what is true in a simulated study, and what differs by chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gradinoc.study.description import POSITIONS
from gradinoc.study.rules import Rules
from gradinoc.study.settings import NULLS

SOURCES = ("C5", "C7a", "C7b", "C7c")  # claims whose truth follows from a scenario's numbers
CLAIMS = ("C1", "C2", "C3", "C4", "C6", *SOURCES)
GRADES = (0.4, 1.0)  # of inoculating prompts' elicitation, full inoculation's being 1
MIDDLE = sum(GRADES) / 2  # of an inoculating prompt on average
TURNED, CARRIED, REMOVED = Rules().turned, Rules().carried, Rules().removed
BASE_SCORE = 0.05  # before training


@dataclass(frozen=True)
class Noise:
    """What differs by chance, as standard deviations; cosines at a layer of depth 1 unless it says otherwise.

    Prompts of one family: `prompt_alignment`, `prompt_drift` (share of neutral drift), `prompt_loss` (nats/token) and
    `prompt_elicitation` (full inoculation's is 1; harmless and opposite prompts only, inoculating ones are drawn
    from `GRADES`).

    Questions, on the frozen model: `difficulty` and `loss` (nats/token) of an example's loss, alike under every prompt
    and under one; `example`, `alignment`, `layer` of its alignment, alike under every prompt, under one, at one layer
    under one; `family_template` and `template` of a template's alignment under a family and under one prompt; `odds`
    of a question's decision log-odds under one prompt (nats), `behaviour` of a sampled response's score (fraction).

    Directions: `nulls`, by kind, of T(u), harmless less inoculating prompts; `null_prompt` of one prompt along one of
    them; `unrelated` of T along an unrelated trait; `steering` of another direction's slope (nats/unit of strength).

    Training: `seed` and `run` of the alignment of a seed's runs and of one run, `step` of one example; `run_drift`,
    `seed_drift` of a run's and a seed's share of drift; `training_null` of a random direction's alignment.
    Of drift by question: `drift_template`, `drift_family`, `drift_prompt` of a template's share of the mean, alike for
    all runs, for a family, for a prompt; `response` of one sampled response (fraction of the scale).

    Where drift comes from: `account` of a question's accounted drift (of `nats`), `accounted` of what a stretch does
    beyond what is accounted for, `own` of what a prompt's runs learn under it, `length` of the logarithms of the way's
    length and the gradient's norm, `along` of what goes along a direction, `null_along` by kind of null of the share
    that goes along a direction, `kernel` of the kernel before training.

    Runs with an intervention: `matched` of what a direction of the same energy removes, of inoculation's effect.

    Away from the textbook: `degrees` of freedom of Student's t, in place of the normal distribution, with the same
    standard deviations; `ratio` multiplies the spread of inoculating prompts' alignment and drift.
    """

    prompt_alignment: float = 0.04
    prompt_drift: float = 0.05
    prompt_loss: float = 0.12
    prompt_elicitation: float = 0.06
    difficulty: float = 0.25
    loss: float = 0.05
    example: float = 0.05
    alignment: float = 0.04
    layer: float = 0.02
    family_template: float = 0.015
    template: float = 0.03
    odds: float = 0.6
    behaviour: float = 0.2
    nulls: Mapping[str, float] = field(
        default_factory=lambda: {null: 2.5 * kind.spread for null, kind in NULLS.items()}
    )
    null_prompt: float = 0.01
    unrelated: float = 0.01
    steering: float = 0.5
    seed: float = 0.01
    run: float = 0.01
    step: float = 0.03
    run_drift: float = 0.04
    seed_drift: float = 0.01
    training_null: float = 0.03
    drift_template: float = 0.15
    drift_family: float = 0.08
    drift_prompt: float = 0.08
    response: float = 0.2
    account: float = 0.1
    accounted: float = 0.03
    own: float = 0.05
    length: float = 0.02
    along: float = 0.02
    null_along: Mapping[str, float] = field(
        default_factory=lambda: {null: 5 * kind.spread for null, kind in NULLS.items()}
    )
    kernel: float = 0.015
    matched: float = 0.1
    degrees: float = math.inf
    ratio: float = 1.0

    def spread(self, null: str) -> float:
        """That of T(u) of a kind of direction: of one that was not looked at, what its own `Null` says."""
        return self.nulls.get(null, 2.5 * NULLS[null].spread)

    def draw(self, rng: np.random.Generator, spread: float, *shape: int) -> np.ndarray:
        """Noise [*shape] of standard deviation `spread`: normal, or Student's t."""
        if math.isinf(self.degrees):
            return rng.normal(0, spread, shape)
        return spread * math.sqrt((self.degrees - 2) / self.degrees) * rng.standard_t(self.degrees, shape)


@dataclass(frozen=True)
class Scenario:
    """What is true in a simulated study.

    Full inoculation has an elicitation of 1, an inoculating prompt one between `GRADES`, the plan's own `core` (None:
    as the others), a harmless one 0, an opposite one -0.2; each prompt differs by chance (`Noise`).

    Alignment (cosines at depth 1): neutral's is `alignment`; a prompt takes off `fall` per elicitation, `any_prompt`
    whatever it says, and `slope` for every nat/token that it takes off the loss, which is `loss` per elicitation.
    `between` is the alignment that goes with a nat/token of an example's difficulty for reasons beside its loss.

    Drift, as a share of neutral's (which is `drift` of the scale and `nats` of decision log-odds): a prompt removes
    `conditional` whatever it says, `follows` for every cosine that it takes off alignment (chance included), and
    `elicits` per elicitation. By decision log-odds it removes 1 - `disagree` of what it removes by score. With
    `progress`, alignment in training follows a run's share of drift: cosines per unit of it.

    Elicitation: `odds` nats and `behaviour` of the score per elicitation, `promoted` of the promoting prompt's.

    The direction: `auc` and `split_half` in the band; `steering` nats per unit of strength; `rise` of the loss where
    it is steered by most (nats/token); `moved` by neutral runs along it. `drawn_from` is the kind of null direction of
    which the trait's is only one more ("" none): then `fall` is drawn anew in every study, as those of the others are;
    so are `steering`, `alignment` and `caused` where they are named in `by_chance`. `unspecific` is the share of T(v)
    that an unrelated trait shows too.

    Where drift comes from: by the size of updates a run's accounted drift is less by the power 1 - `turned`, by their
    turn by `turned`; what is learned under its own prompt is less by the power `learned` (0: all learn alike); `along`
    is the share of it that goes along v (None: half where drift follows alignment, else none); a nat that is accounted
    for is `accounts` in truth; the kernel before training is `foretold` times what a prompt leaves, less `elicited`
    times its elicitation. C5, C7a, C7b and C7c hold or not by these numbers, whatever `holds` says of them.

    Cause: removing the component along v removes `caused` of what the plan's inoculation prompt removes, and cuts `cut`
    of the movement along v; restoring it brings as much back, or `restored` of it. Runs without it learn `learns` of
    what neutral ones do, and drift by as much less.

    Apparatus: `learnt` is the least fall of a run's training loss (nats/token), `one_start` whether runs of a seed
    begin alike, `unscorable` the share of responses that cannot be scored. With `templates`, questions come from that
    many.

    `holds` are the claims that are true here; of `untold` ones neither is right, support or refutation, since the
    apparatus that they rest on is not sound; those that `vary` are true in some studies. `verdicts` are right besides
    UNDECIDED.
    """

    alignment: float = 0.30
    fall: float = 0.15
    any_prompt: float = 0.0
    slope: float = 0.1
    loss: float = 0.30
    between: float = 0.0
    core: float | None = None
    drift: float = 0.5
    nats: float = 2.0
    conditional: float = 0.1
    follows: float = 4.5
    elicits: float = 0.0
    disagree: float = 0.0
    progress: float = 0.0
    odds: float = 2.0
    behaviour: float = 0.5
    promoted: float = 1.2
    auc: float = 0.99
    split_half: float = 0.95
    steering: float = 3.0
    rise: float = 0.05
    moved: float = 1.5
    drawn_from: str = ""
    by_chance: tuple[str, ...] = ()
    unspecific: float = 0.0
    turned: float = 0.8
    learned: float = 0.0
    along: float | None = None
    accounts: float = 1.0
    foretold: float = 1.0
    elicited: float = 0.0
    caused: float = 0.8
    cut: float = 0.95
    restored: float | None = None
    learns: float = 1.0
    learnt: float = 0.2
    one_start: bool = True
    unscorable: float = 0.0
    templates: int = 0
    noise: Noise = field(default_factory=Noise)
    holds: tuple[str, ...] = CLAIMS
    untold: tuple[str, ...] = ()
    vary: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ("SUPPORTED", "CONSISTENT")

    def __post_init__(self) -> None:
        """Add the claims on where drift comes from to those that hold, or that vary where what decides is drawn."""
        apart = self.follows * (self.fall + self.slope * self.loss) + self.elicits > 0
        true = {
            "C5": apart and self.caused > REMOVED and "caused" not in self.by_chance and self.restored is None,
            "C7a": apart and self.turned > TURNED,
            "C7b": apart and self.carried > CARRIED,
            "C7c": self.foretold > 0,
        }
        drawn = ("C7a", "C7b") if self.drawn_from else ()
        vary = (*(key for key in self.vary if key not in drawn), *(key for key in drawn if key not in self.untold))
        open_ = (*self.untold, *vary)
        holds = (*(key for key in self.holds if key not in SOURCES), *(key for key in SOURCES if true[key]))
        object.__setattr__(self, "vary", vary)
        object.__setattr__(self, "holds", tuple(key for key in holds if key not in open_))

    @property
    def carried(self) -> float:
        """The share of accounted drift that goes along v."""
        return self.along if self.along is not None else 0.5 * (self.follows != 0)


@dataclass(frozen=True)
class Sizes:
    """How much a study measures.

    Prompts: `inoculating`, `harmless` and `opposite` are measured, the plan's own among them; the first `trained` of
    each of these families are trained under, the plan's own and neutral with `seeds` seeds, with `rephrased` the pair
    whose wording changes. Questions: `examples` under the plan's own prompts, `shared` under all; `elicitation`,
    `behaviour`, `steering`, `evaluation`, `attributed` of those tables. `directions` of each null, `steered` and
    `training_directions` others; `matched` runs have a component along another direction removed, and as many restored
    (0: no run has an intervention); `positions` are the first of `study.description.POSITIONS`. `templates` of None is
    the scenario's number.
    Without `beside` tables that decide nothing are empty.
    """

    inoculating: int = 10
    harmless: int = 10
    opposite: int = 4
    trained: tuple[int, int, int] = (6, 6, 1)
    rephrased: bool = True
    seeds: int = 3
    examples: int = 96
    shared: int = 32
    elicitation: int = 96
    behaviour: int = 64
    steering: int = 32
    evaluation: int = 48
    attributed: int = 6
    layers: int = 6
    positions: int = len(POSITIONS)
    steps: int = 30
    directions: int = 200
    steered: int = 39
    training_directions: int = 40
    templates: int | None = None
    matched: int = 0
    beside: bool = True


def depths(layers: int) -> np.ndarray:
    """Depth [layers] of each layer, the last being 1: separation and alignment both grow with it."""
    return np.linspace(1.0, 0.2, layers)[::-1]


def band_depth(layers: int) -> float:
    """What an effect of 1 at depth 1 is in the mean over the band's layers."""
    depth = depths(layers)
    return float(depth[depth >= 0.5].mean())


SCENARIOS: dict[str, Scenario] = {
    "effect": Scenario(),
    # Nothing is true of inoculation: no prompt moves alignment or drift.
    "no_effect": Scenario(fall=0, slope=0, follows=0, conditional=0, foretold=0, holds=(), verdicts=()),
    # Any prompt keeps the drift down, and alignment is as it was.
    "any_prompt": Scenario(
        fall=0, slope=0, follows=0, conditional=0.7, foretold=0, holds=(), verdicts=("ANY_PROMPT",)
    ),
    # Drift falls by a way of its own.
    "no_alignment": Scenario(
        fall=0, slope=0, follows=0, elicits=0.9, holds=("C6",),
        verdicts=("OTHER_DIRECTION", "REFUTED"),
    ),
    # So it does, and all by smaller updates: hardly any run is left less than nothing, for which updates have to turn.
    "smaller_updates": Scenario(
        fall=0, slope=0, follows=0, elicits=0.8, conditional=0, turned=0, holds=("C6",),
        verdicts=("MAGNITUDE", "REFUTED"),
    ),
    "loss_explains": Scenario(fall=0, slope=0.7, holds=("C1", "C2", "C4", "C6"), verdicts=()),
    # Steering and training go against v, which is the trait's with its sign turned.
    "wrong_sign": Scenario(
        alignment=-0.30, fall=-0.15, slope=-0.1, follows=-4.5, steering=-3.0, moved=-1.5, holds=("C6",),
        untold=("C1", "C2", "C3", "C4"), verdicts=("OTHER_DIRECTION", "REFUTED"),
    ),
    "floor": Scenario(conditional=0.97, follows=0, holds=("C1", "C2", "C3"), verdicts=("ANY_PROMPT",)),
    # Every prompt's runs end at the top of the scale, whatever they would have removed.
    "ceiling": Scenario(drift=3.5, conditional=0),
}  # fmt: skip
