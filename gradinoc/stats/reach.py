"""What a design over prompts can reach before anything is measured: the smallest p, the narrowest interval.

A permutation or a rank counts, so its p has a floor; a t has none, but its interval is no narrower than the spread of
prompts allows. Half-widths are what an interval has on average, in the units of the spreads that they are given.
"""

from __future__ import annotations

import math

from scipy import stats

from gradinoc.stats.families import EXACT_LABELS, RANDOM_LABELS
from gradinoc.stats.regression.prediction import FEWEST
from gradinoc.stats.regression.prompt_slope import EXACT_PROMPTS, RANDOM_ORDERS, SPARE


def smallest_label_p(first: int, second: int, tail: str = "greater") -> float:
    """The smallest p of `families.permuted_labels` with families of these sizes: 1/56 for 3 against 5.

    Two-sided it is twice that between families of one size, whose mirror image is as far from zero.
    """
    arrangements = math.comb(first + second, first)
    both = 2 if tail == "two-sided" and first == second else 1
    return both / arrangements if arrangements <= EXACT_LABELS else 1 / (1 + RANDOM_LABELS)


def smallest_rank_p(others: int) -> float:
    """The smallest p of a place among `others` prompts or directions: 1 / (1 + others), 0.05 or below from 19 on."""
    return 1 / (1 + others)


def fewest_others(alpha: float) -> int:
    """The fewest prompts or directions among which a place can have a p of `alpha` or below: 19 at 0.05.

    That is without error of its own, which adds to p: a prompt that clearly leads 24 others has 0.04, 19 hardly 0.05.
    """
    return math.ceil(1 / alpha - 1 - 1e-9)


def smallest_slope_p(prompts: int, covariates: int, spare: int = 1) -> float:
    """The smallest p of `prompt_slope.prompt_slope`; 1 where there are too few prompts for it to be judged."""
    if prompts < fewest_prompts(covariates, spare):
        return 1.0
    return 1 / math.factorial(prompts) if prompts <= EXACT_PROMPTS else 1 / (1 + RANDOM_ORDERS)


def smallest_prediction_p(prompts: int, draws: int) -> float:
    """The smallest p of `prediction.prediction`; 1 where there are too few prompts to leave one out.

    Of few prompts some of the random orders are the observed one, so that p comes near 1 over the number of orders.
    """
    return max(1 / (1 + draws), 1 / math.factorial(prompts)) if prompts >= FEWEST else 1.0


def fewest_prompts(covariates: int, spare: int = 1) -> int:
    """The fewest prompts over which a slope with that many covariates is judged, `spare` of them left out in turn."""
    return covariates + SPARE + spare


def half_width(
    prompts: dict[str, int], spread: float, templates: int = 0, template_spread: float = 0.0, level: float = 0.95
) -> float:
    """Half the interval of a difference of two families' means (`families.compare`).

    `prompts`: family -> its prompts; `spread`: standard deviation of prompts' means (prompt, run and questions'
    noise); `template_spread`: standard deviation over templates of the true difference of the families. Infinite for a
    family of one prompt. In a share (`ratios.ratio`) it is about this over the denominator.
    """
    if min(prompts.values()) < 2 or (templates == 1 and template_spread > 0):
        return math.inf
    parts = [(spread**2 / count, count - 1) for count in prompts.values()]
    if templates > 1:
        parts.append((template_spread**2 / templates, templates - 1))
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return 0.0
    df = total**2 / sum(variance**2 / freedom for variance, freedom in parts)
    return float(stats.t.ppf(0.5 + level / 2, df)) * math.sqrt(total)


def seeds_half_width(seeds: int, spread: float, level: float = 0.95) -> float:
    """Half the t interval of a mean over `seeds` runs whose standard deviation is `spread`; infinite for one seed."""
    if seeds < 2:
        return math.inf
    return float(stats.t.ppf(0.5 + level / 2, seeds - 1)) * spread / math.sqrt(seeds)
