"""The true parts of C7's splits in a world: of the kind of prompt that prompts are drawn from, over endless questions.

A part is a mean over pairs of a harmless and an inoculating prompt, which are drawn apart from each other. So it is
made of each family's means of products of factors, and these are integrals over a prompt's elicitation and chance: by a
grid, without a simulated study.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from gradinoc.claims.evidence.measures import HARMLESS, INOCULATING
from gradinoc.claims.evidence.sources import LEARNED_LESS, SIZE, STEEPNESS, TRANSFER, TURN
from gradinoc.power.scenarios import GRADES, Scenario
from gradinoc.power.simulated.attributed import COSINE, relative

Array = npt.NDArray[np.float64]
Moments = Mapping[frozenset[int], float]  # factors -> the family's mean of their product
NODES = 401  # of chance, from -8 to 8 standard deviations
FINE = 32  # of elicitation
ROUNDING = 1e-9  # of neutral drift: families that differ by less do not differ


def true_splits(truth: Scenario) -> dict[str, float]:
    """Key of an effect of C7a -> its true value; of the average seed. Empty where it is not known.

    Known where chance is normal and inoculating runs are left less drift than harmless ones.
    """
    if math.isfinite(truth.noise.degrees) or truth.core is not None or truth.drawn_from:
        return {}
    runs = {family: _left(truth, family) for family in (HARMLESS, INOCULATING)}
    means = {family: float(weights @ left) for family, (left, weights) in runs.items()}
    whole = means[HARMLESS] - means[INOCULATING]
    if whole < ROUNDING:
        return {}
    ways, reached = ({family: found(truth, *run) for family, run in runs.items()} for found in (_ways, _reached))
    parts = dict(zip((TURN, SIZE, STEEPNESS), _parts(ways[HARMLESS], ways[INOCULATING], 3), strict=True))
    parts |= zip((TRANSFER, LEARNED_LESS), _parts(reached[HARMLESS], reached[INOCULATING], 2), strict=True)
    first = frozenset({0})
    cosine, transfer = (each[HARMLESS][first] - each[INOCULATING][first] for each in (ways, reached))
    return {f"share.{name}": part / whole for name, part in parts.items()} | {
        "turn": COSINE * cosine,
        "transfer": transfer,
    }


def _left(truth: Scenario, family: str) -> tuple[Array, Array]:
    """What a family's runs leave of the neutral drift by log-odds: its values, and how likely each is."""
    noise, inoculating = truth.noise, family == INOCULATING
    scale = noise.ratio if inoculating else 1.0
    slope = truth.follows * (truth.fall + truth.slope * truth.loss) + truth.elicits  # removed per elicitation
    chance = [
        truth.follows * truth.slope * noise.prompt_loss, truth.follows * scale * noise.prompt_alignment,
        scale * noise.prompt_drift, truth.follows * noise.run, noise.run_drift,
    ]  # fmt: skip
    if inoculating:
        nodes, weights = np.polynomial.legendre.leggauss(FINE)
        elicitation = np.mean(GRADES) + np.ptp(GRADES) / 2 * nodes
    else:
        elicitation, weights = np.zeros(1), np.ones(1)
        chance.append(slope * noise.prompt_elicitation)
    at = np.linspace(-8, 8, NODES)
    removed = truth.conditional + truth.follows * truth.any_prompt + slope * elicitation
    left = 1 - removed[:, None] + math.sqrt(sum(each**2 for each in chance)) * at
    likely = np.outer(weights, np.exp(-(at**2) / 2)).ravel()
    left = left + truth.disagree * (1 - left)
    return left.ravel(), likely / likely.sum()


def _ways(truth: Scenario, left: Array, weights: Array) -> Moments:
    """Of cosine, length of the way and norm of the gradient, in units of what neutral runs have.

    Length and norm each vary by a factor of their own, and the cosine makes up for both.
    """
    size = relative(left)
    own = [left / size ** (1 - truth.turned), size ** (1 - truth.turned), np.ones_like(left)]
    powers = np.array([(-1, -1), (1, 0), (0, 1)])  # of either chance, by factor

    def mean(chosen: Sequence[int]) -> float:
        value = float(weights @ math.prod((own[each] for each in chosen), start=np.ones_like(left)))
        power = powers[list(chosen)].sum(axis=0)
        return value * math.exp(float(power @ power) * truth.noise.length**2 / 2)

    return _moments(3, mean)


def _reached(truth: Scenario, left: Array, weights: Array) -> Moments:
    """Of transfer and what is learned under the own prompt, in units of neutral drift."""
    learned = relative(left) ** truth.learned
    at = np.linspace(-8, 8, NODES)
    likely = np.exp(-(at**2) / 2) / np.exp(-(at**2) / 2).sum()
    chance = 1 + truth.noise.own * at
    means = {
        (): 1.0,
        (0,): float(weights @ (left / learned)) * float(likely @ (1 / chance)),
        (1,): float(weights @ learned) * float(likely @ chance),
        (0, 1): float(weights @ left),
    }
    return _moments(2, lambda chosen: means[tuple(chosen)])


def _moments(count: int, mean: Callable[[Sequence[int]], float]) -> Moments:
    sets = [chosen for size in range(count + 1) for chosen in combinations(range(count), size)]
    return {frozenset(chosen): mean(chosen) for chosen in sets}


def _parts(first: Moments, second: Moments, count: int) -> list[float]:
    """Each factor's part of the difference of the families' mean products: Shapley's value of a pair, on average."""
    every, parts = frozenset(range(count)), []
    for own in every:
        part = 0.0
        for size in range(count):
            weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            for chosen in map(frozenset, combinations(every - {own}, size)):
                rest = every - chosen - {own}
                part += weight * (first[chosen | {own}] * second[rest] - first[chosen] * second[rest | {own}])
        parts.append(part)
    return parts
