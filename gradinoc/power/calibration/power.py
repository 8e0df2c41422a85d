"""The smallest effects that each claim is stated to find, and the formulas from which they follow.

They belong to `DESIGN` and the defaults of `simulation.Noise`, and are the formulas' results rounded up: no simulation
has a part in them. Claims that need several results at once get a union bound: the chances of missing each add up to
at most one in five, so that the power is at least 80 % whatever their dependence.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import optimize, stats

from gradinoc.power.simulate import WORLDS, Noise, Sizes, band_depth
from gradinoc.study.prompts import UNRELATED

# Every number on which a claim rests, and no table that stands beside: 96 examples, 3 conditions x 3 seeds. Layers
# and steps are few because studies are many; two of three layers are in the band.
DESIGN = Sizes(examples=96, layers=3, seeds=3, steps=5, directions=200, evaluation=24, positions=1, beside=False)
POWER = 0.80
ALPHA = 0.05

# C1-C3: alignment, neutral - inoculation (cosine, mean over the band); C4: drift in log-odds, neutral - inoculation
# (nats/token). C1 against loss_matched too.
MINIMUM_EFFECTS = {"C1": 0.017, "C2": 0.039, "C3": 0.035, "C4": 0.60}


def contrast_errors(noise: Noise, sizes: Sizes = DESIGN) -> tuple[float, float]:
    """Standard errors of T(v) and of an unrelated trait's T(u): band mean, paired by example, loss without effect."""
    depth = np.linspace(0.2, 1.0, sizes.layers)
    layers = int(np.sum(depth >= depth.max() / 2))

    def error(spread: float) -> float:
        variance = 2 * (band_depth(sizes.layers) * spread) ** 2 + 2 * noise.layer**2 / layers
        return math.sqrt(variance / sizes.examples)

    return error(noise.alignment), error(noise.unrelated_alignment)


def _below(effect: float, error: float, df: float, tail: float) -> float:
    """The chance that a one-sided t test at `tail` misses a true `effect`: noncentral t."""
    return float(stats.nct.cdf(stats.t.isf(tail, df), df, effect / error))


def miss_1(effect: float, noise: Noise, sizes: Sizes = DESIGN) -> float:
    """C1: two contrasts, whose 95 % intervals both have to lie above zero; paired t."""
    return 2 * _below(effect, contrast_errors(noise, sizes)[0], sizes.examples - 1, ALPHA / 2)


def miss_2(effect: float, noise: Noise, sizes: Sizes = DESIGN) -> float:
    """C2: T(v) ~ N(effect, error^2) among T(u) ~ N(0, spread^2) of three kinds, and above six unrelated traits'.

    Its p with sampling error is at most alpha where T(v) is above 1.645 root(error^2 + spread^2). An unrelated trait's
    T(u) ~ N(0, spread^2) is left behind, with either sign, where the paired t of the difference is above its
    quantile. The isotropic mean of 200 directions is known so well that its equivalence never fails first.
    """
    error, unrelated = contrast_errors(noise, sizes)
    depth, bar = band_depth(sizes.layers), float(stats.norm.isf(ALPHA))
    spreads = (
        math.sqrt(2) * noise.isotropic,
        math.sqrt(2) * noise.covariance,
        math.hypot(noise.flipped * effect, math.sqrt(2) * depth * noise.sign_flipped),
    )
    among = sum(float(stats.norm.cdf((bar * math.hypot(error, spread) - effect) / error)) for spread in spreads)
    both = math.hypot(error, unrelated)
    lead = float(stats.t.isf(ALPHA, sizes.examples - 1)) * both
    overtaken = stats.norm.cdf((lead - effect) / math.hypot(both, math.sqrt(2) * depth * noise.unrelated))
    return among + 2 * len(UNRELATED) * float(overtaken)


def miss_3(effect: float, noise: Noise, sizes: Sizes = DESIGN) -> float:
    """C3: the intervals within examples, by regression and by bins have to lie above zero.

    With x the difference of losses and r its mean over its standard deviation (root 2 loss), the intercept of
    (difference of alignments) ~ x has the error of T(v) times root(1 + r^2); HC3 takes its variance for larger by the
    mean leverage of the examples that weigh in it, (1 + (1 + 3 r^2) / (1 + r^2)) / n for a normal x. Across examples
    the slope on loss, whose error adds to the regression's and to the bins', has variance
    (example^2 + alignment^2 / 2) / (n difficulty^2).
    """
    error, _ = contrast_errors(noise, sizes)
    neutral, inoculated, _ = WORLDS["effect"].loss
    distance, df = inoculated - neutral, sizes.examples - 2
    square = distance**2 / (2 * noise.loss**2)
    robust = 1 + (1 + (1 + 3 * square) / (1 + square)) / sizes.examples
    within = error * math.sqrt((1 + square) * robust)
    slope = math.hypot(noise.example, noise.alignment / math.sqrt(2)) * band_depth(sizes.layers)
    across = math.hypot(error, distance * slope / (math.sqrt(sizes.examples) * noise.difficulty))
    return _below(effect, within, df, ALPHA / 2) + 2 * _below(effect, across, df, ALPHA / 2)


def miss_4(effect: float, noise: Noise, sizes: Sizes = DESIGN, follows: float = WORLDS["effect"].follows) -> float:
    """C4: the drift difference's interval above zero (paired t over seeds), and r > 0 with its permutation p.

    Where inoculated runs drift least and align least in every seed, at most 2^3 of the 6^3 arrangements of three seeds
    come as close (p 0.037): r is missed at most as often as a run of a seed drifts less than the inoculated one. Their
    early alignments are far apart by comparison.
    """
    answers = noise.response**2 / sizes.evaluation
    error = math.sqrt(2 * (noise.run_drift**2 + (follows * noise.run) ** 2 + answers))
    swapped = 2 * sizes.seeds * float(stats.norm.sf(effect / error))
    return _below(effect, error / math.sqrt(sizes.seeds), sizes.seeds - 1, ALPHA / 2) + swapped


MISSES: dict[str, Callable[[float, Noise], float]] = {"C1": miss_1, "C2": miss_2, "C3": miss_3, "C4": miss_4}


def minimum_effect(claim: str, noise: Noise) -> float:
    """The effect at which the chances of missing it add up to one in five, in the units of `MINIMUM_EFFECTS`."""
    return float(optimize.brentq(lambda effect: MISSES[claim](effect, noise) - (1 - POWER), 1e-6, 100.0))
