"""The scenarios in which the judge is tried: which claims hold there, and what a sound judge makes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradinoc.power.scenarios import CLAIMS, SCENARIOS, Noise, Scenario, Sizes, band_depth
from gradinoc.study.description import NULLS

# Every number on which a claim rests, and no descriptive table: 96 examples, 3 conditions x 3 seeds. Layers
# and steps are few because studies are many; two of three layers are in the band.
DESIGN = Sizes(examples=96, layers=3, seeds=3, steps=5, directions=200, evaluation=24, positions=1, beside=False)
POWER = 0.80
ALPHA = 0.05

# The smallest effects that each claim is stated to find in four of five studies of this design, fixed before any was
# simulated. C1-C3: alignment, neutral - inoculation (cosine, mean over the band); C4: drift in log-odds, neutral -
# inoculation (nats/token). C1 against loss_matched too.
MINIMUM_EFFECTS = {"C1": 0.017, "C2": 0.039, "C3": 0.035, "C4": 0.60}


@dataclass(frozen=True)
class Case:
    """A scenario, the sizes of its studies, and which bars it has to meet beside those on false positives.

    `power` names the claims that have to be supported in at least 80 % of studies, since the effect is their stated
    minimum; with `typical` the best verdict has to be given as often. A `limit` is a sentence on what the design cannot
    tell apart: errors are reported without a bar.
    """

    scenario: Scenario
    sizes: Sizes = DESIGN
    power: tuple[str, ...] = ()
    typical: bool = False
    limit: str = ""


_NO_GAP: dict[str, Any] = {"gap": (0.0, 0.0, 0.0), "slope": 0.0}


def _scenario(name: str, **changes: Any) -> Scenario:
    return replace(SCENARIOS[name], **changes)


def _minimum(alignment: float | None = None, drift: float | None = None) -> Case:
    """The effect with a contrast of alignment or of drift as small as stated, and loss without a part in it."""
    truth = SCENARIOS["effect"]
    changes: dict[str, Any] = {"slope": 0.0, "verdicts": ("SUPPORTED", "UNDECIDED")}
    if alignment is not None:
        changes["gap"] = (0.0, alignment / band_depth(DESIGN.layers), 0.0)
    if drift is not None:
        changes["drift"] = (truth.drift[0], truth.drift[0] - drift, truth.drift[0])
    return Case(replace(truth, **changes))


# How the textbook's assumptions fail, each in a scenario without an effect and in one with it.
MISSPECIFIED: dict[str, dict[str, Any]] = {
    "heavy_tails": {"noise": Noise(degrees=3)},
    "unequal_variances": {"noise": Noise(ratio=(1.0, 2.5, 1.0))},
    "correlated_seeds": {"noise": Noise(shared=0.2)},
    "heteroscedastic": {"noise": Noise(growth=1.5)},
    "clustered": {"templates": 24},
    "layer_noise": {"noise": Noise(alignment=0.01, layer=0.12)},
}
MANY_LAYERS = replace(DESIGN, layers=12)  # eight in the band: the best of them would be found on the data that test it
CONFOUNDED = (
    "The prompt lowers alignment and, by a separate way, drift; nothing links them within conditions. Three conditions "
    "cannot tell this from the effect: it is judged SUPPORTED by design, with a warning."
)
LATENT = (
    "Alignment goes with a loss that is seen through noise, and hard examples differ for other reasons too: every "
    "regression on loss is misled. Only a control whose loss was measured to be inoculation's can tell."
)


def _misspecified(base: str, scenario: Scenario) -> dict[str, Case]:
    return {
        f"{base}, {name}": Case(replace(scenario, **changes), MANY_LAYERS if name == "layer_noise" else DESIGN)
        for name, changes in MISSPECIFIED.items()
    }


def _textbook() -> dict[str, Case]:
    """The scenarios of `simulation.SCENARIOS`, and those in which one claim is false by as little as can be."""
    any_prompt = _scenario(
        "effect", gap=(0, 0.12, 0.12), drift=(3, 1.6, 1.6), caps=(0.9, 0.4, 0.4), holds=CLAIMS[1:],
        verdicts=("UNDECIDED", "REFUTED"),
    )  # fmt: skip
    # C1 and C3 are true in some of these studies and false in others, by chance: they have no rate of false positives.
    chance: dict[str, Any] = {
        **_NO_GAP,
        "holds": ("C1", "C3", "C4"),
        "verdicts": ("LOSS_MEDIATED", "UNDECIDED", "REFUTED"),
    }

    def one_of(null: str, spread: float) -> Case:
        """The trait's direction is one more draw of `null`, whose draws differ by `spread`; all others are quiet."""
        nulls = {**dict.fromkeys(NULLS, 0.001), null: spread}
        quiet = Noise(layer=0.01, nulls=nulls, unrelated=0.0, unrelated_alignment=0.005)
        return Case(_scenario("effect", drawn_from=null, noise=quiet, **chance))

    latent = _scenario("loss_explained", between=-0.8, latent=True)
    separate = {"follows": 0.0, "seed_follows": 0.0}
    return {
        **{name: Case(scenario, typical=True) for name, scenario in SCENARIOS.items()},
        "any_prompt": Case(any_prompt),
        "any_prompt, clustered": Case(replace(any_prompt, templates=24)),
        "any_prompt, layer_noise": Case(replace(any_prompt, noise=Noise(alignment=0.01, layer=0.12)), MANY_LAYERS),
        "one_of_covariance": one_of("covariance", 0.011),
        # Directions differ by as much as T(v)'s error, where taking it for exact misleads the most.
        "one_of_covariance, narrow": one_of("covariance", 0.0036),
        "one_of_sign_flipped": one_of("sign_flipped", 0.0135),
        "unspecific": Case(_scenario("effect", unspecific=1.0, holds=("C1", "C3", "C4"), verdicts=("UNDECIDED",))),
        "hard_examples": Case(_scenario("loss_explained", between=-0.8)),
        "latent_loss": Case(latent, limit=LATENT),
        "latent_loss, measured_control": Case(replace(latent, further=True)),
        "seed_driven": Case(_scenario("loss_mediated", drift=(3, 2, 3), seed_follows=20.0, noise=Noise(seed=0.05))),
        "confounded": Case(
            _scenario("effect", **separate, holds=CLAIMS[:3], verdicts=("UNDECIDED",)), limit=CONFOUNDED
        ),
    }


def cases() -> dict[str, Case]:
    """Every case by name, in the order of the tables."""
    least = MINIMUM_EFFECTS
    gap = max(least[claim] for claim in ("C1", "C2", "C3"))
    small = tuple(value / 2 for value in SCENARIOS["effect"].gap)
    return {
        **_textbook(),
        "effect, half": Case(_scenario("effect", gap=small), typical=True),
        "effect, measured_control": Case(_scenario("effect", further=True), typical=True),
        **{f"minimum {key}": replace(_minimum(least[key]), power=(key,)) for key in ("C1", "C2", "C3")},
        "minimum C4": replace(_minimum(drift=least["C4"]), power=("C4",)),
        "minimum": replace(_minimum(gap, least["C4"]), power=CLAIMS),
        **_misspecified("no_effect", SCENARIOS["no_effect"]),
        **_misspecified("effect", SCENARIOS["effect"]),
    }


def truths(case: Case) -> dict[str, float]:
    """Claim and key of an effect -> its true value in this scenario, for the effects that have one.

    The binned comparison leaves part of what loss does, and has a true value only where loss does nothing; where hard
    examples differ for other reasons than loss, regression across examples has none either.
    """
    scenario, depth = case.scenario, band_depth(case.sizes.layers)
    gap, fall = np.array(scenario.gap), np.array(scenario.loss)
    level = -(gap + scenario.slope * fall) * depth
    learnt = float(np.mean(1 - 0.5 * np.arange(case.sizes.steps) / case.sizes.steps))
    known = {
        "C1.alignment.neutral": level[0] - level[1],
        "C1.alignment.loss_matched": level[2] - level[1],
        "C1.training.neutral": (level[0] - level[1]) * learnt,
        "C4.drift.neutral": scenario.drift[0] - scenario.drift[1],
        "C3.within": gap[1] * depth,
    }
    if scenario.latent:  # a slope on a loss that is seen through noise is too flat
        del known["C3.within"]
    if scenario.between == 0 and not scenario.latent:
        known["C3.regression"] = gap[1] * depth
    if scenario.between == scenario.slope == 0 and not scenario.latent:
        known["C3.bins"] = gap[1] * depth
    if scenario.drawn_from:  # the trait's direction is another one in every study, and so is what is true of it
        known = {name: value for name, value in known.items() if "training" in name or "drift" in name}
    return {name: float(value) for name, value in known.items()}
