"""How drift goes with alignment over prompts, at equal elicitation: a slope whose p permutes prompts.

drift = a + b alignment + covariates + noise, one row a prompt (runs of one prompt are averaged first, neutral is left
out). Two things decide whether such a slope can be believed.

*The p.* Freedman and Lane: residuals of drift on the covariates alone are permuted over prompts, added back, and the
slope's t is computed anew. Permuting drift itself would break its tie to the covariates as well, permuting residuals
of the full model (ter Braak) leans on the slope under test; among the approximations it keeps its size best
with few points (Anderson and Robinson, Aust. N. Z. J. Stat. 43, 2001; Winkler et al., NeuroImage 92, 2014).

*Error in a covariate.* Where elicitation moves alignment and drift apart from each other, adjusting for elicitation
measured with error takes only a part of it out, and what is left looks like a slope; more prompts make it surer. So a
covariate comes with its known error and is replaced by its expectation given everything measured (regression
calibration; Carroll et al., Measurement Error in Nonlinear Models, 2006, chapter 4), which for a linear model is
exact, where SIMEX extrapolates. That the correction is itself estimated goes into the standard error (Fuller,
Measurement Error Models, 1987, theorem 2.2.1). Error in alignment flattens the slope and is left alone.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gradinoc.stats.effect import Array, Effect, bare, finite, from_standard_error

EXACT_PROMPTS = 8  # 40,320 orders
RANDOM_ORDERS = 9_999
ROUNDING = 1e-12  # of drift: what varies by less does not vary
SPARE = 4  # prompts beyond the covariates without which no slope is judged: 2 degrees of freedom
RELIABLE = 0.5  # of a covariate's spread given everything else, the least share that is not error: with 0.3 size is 8 %


@dataclass(frozen=True)
class Covariate:
    """A covariate of prompts: `values` [prompts] and the known standard error of each, [prompts] or one for all."""

    values: Array
    error: Array | float = 0.0

    @property
    def noise(self) -> float:
        """Its mean error variance."""
        return float(np.mean(finite(self.error, "error of a covariate") ** 2))


def prompt_slope(
    alignment: npt.ArrayLike,
    drift: npt.ArrayLike,
    covariates: Mapping[str, Covariate],
    rng: np.random.Generator,
    name: str,
) -> Effect:
    """The slope of `drift` on `alignment`, both [prompts], at equal `covariates`; p one-sided (upper) over prompts.

    Units: of drift per unit of alignment. The unit is the prompt; interval (t) and p (Freedman-Lane: every order up to
    `EXACT_PROMPTS` prompts, else (1 + #) / (1 + K) over random ones) hold which prompts were chosen, their runs' noise,
    and the known error of covariates; not what all runs of a seed share. Without covariates it is the raw slope.

    Undecidable (all NaN, `method` says why): fewer than covariates + 4 prompts; drift that does not vary; a covariate
    that is constant or tells the same as the others; a covariate less than `RELIABLE` of whose spread, given the others
    and alignment, is more than its error: no analysis separates the two then, only more questions do.

    In simulations (9 to 24 prompts graded from no effect to 1, elicitation moving alignment and drift apart, known
    errors of 0.05 to 0.3) false slopes have p <= 0.05 in 3 to 6 %; uncorrected, in 5 to 54 %.
    """
    effect, design, y = _slope(alignment, drift, covariates, name)
    if not math.isfinite(effect.low):
        return effect
    p, how = _freedman_lane(design, y, effect.estimate / effect.standard_error, rng)
    return replace(effect, p=p, method=f"{effect.method}; {how}, one-sided p")


def weakest_without_one(
    alignment: npt.ArrayLike, drift: npt.ArrayLike, covariates: Mapping[str, Covariate], name: str
) -> tuple[Effect, int]:
    """The slope without that prompt without which its interval reaches lowest, and the prompt's place.

    One prompt that is far out in alignment and drift alike makes a slope of its own, which permuting prompts takes for
    a relation among all: with 14 prompts, one out by 5 standard deviations and nothing related, p is below 0.05 in
    half of simulated studies. No p; all NaN where the slope cannot be told without some prompt.
    """
    x, y = np.asarray(alignment, dtype=np.float64).ravel(), np.asarray(drift, dtype=np.float64).ravel()
    found = []
    for left_out in range(y.size):
        rest = {
            key: Covariate(
                np.delete(np.asarray(each.values, dtype=np.float64).ravel(), left_out),
                each.error if np.ndim(each.error) == 0 else np.delete(np.asarray(each.error).ravel(), left_out),
            )
            for key, each in covariates.items()
        }
        found.append(_slope(np.delete(x, left_out), np.delete(y, left_out), rest, name)[0])
    lows = np.array([effect.low for effect in found])
    place = int(np.argmax(np.isnan(lows))) if np.isnan(lows).any() else int(np.argmin(lows))
    return replace(found[place], p=math.nan), place


def _slope(
    alignment: npt.ArrayLike, drift: npt.ArrayLike, covariates: Mapping[str, Covariate], name: str
) -> tuple[Effect, Array, Array]:
    """The slope with its interval and no p, the calibrated design [prompts, terms] and drift, both centred."""
    y, x = finite(drift, "drift").ravel(), finite(alignment, "alignment").ravel()
    columns = [finite(each.values, f"covariate {key}").ravel() for key, each in covariates.items()]
    if any(column.shape != y.shape for column in [x, *columns]):
        raise ValueError(
            f"{name}: expected as many values as the {y.size} drifts, received {x.size} alignments and "
            f"covariates of {[column.size for column in columns]}"
        )
    effect = bare(name, math.nan, y.size, "prompts", "")
    design = np.column_stack([x, *columns])
    if why := _undecidable(design, y):
        return replace(effect, method=f"undecidable: {why}"), design, y
    design, y = design - design.mean(axis=0), y - y.mean()
    fit = _corrected(design, y, np.array([0.0, *(each.noise for each in covariates.values())]))
    if fit.unreliable > 1 - RELIABLE:
        share = f"{100 * fit.unreliable:.0f} % of what covariates say beside the others is their own error"
        return replace(effect, method=f"undecidable: {share}; measure them on more questions"), design, y
    effect = from_standard_error(replace(effect, estimate=fit.slope), fit.error, y.size - design.shape[1] - 1)
    beside = f" at equal {', '.join(covariates)}" if covariates else ""
    noisy = [key for key, each in covariates.items() if each.noise]
    corrected = f", corrected for error in {', '.join(noisy)}" if noisy else ""
    return replace(effect, p=math.nan, method=f"OLS over prompts{beside}{corrected}"), fit.design, y


def _undecidable(design: Array, y: Array) -> str:
    """Why no slope can be told of a design [prompts, terms] and drift; empty where one can."""
    prompts, terms = design.shape
    if prompts < terms - 1 + SPARE:
        return f"{prompts} prompts for {terms - 1} covariates, which take {terms - 1 + SPARE} or more"
    if np.ptp(y) <= ROUNDING * np.abs(y).max():
        return "drift does not vary"
    if np.linalg.matrix_rank(design - design.mean(axis=0)) < terms:
        return "alignment and covariates do not vary apart from each other"
    return ""


@dataclass(frozen=True)
class _Fit:
    """The slope at equal others, its standard error, and the calibrated design [prompts, terms]; centred."""

    slope: float
    error: float
    design: Array
    unreliable: float


def _corrected(design: Array, y: Array, noise: Array) -> _Fit:
    """Least squares on columns of which `noise` is known error variance; `design` and `y` are centred.

    With products S of the design and error Sigma (times the degrees of freedom left to a column), S - Sigma stands for
    S; that equals ordinary least squares on the columns' expectations V - V S^-1 Sigma.
    """
    prompts, terms = design.shape
    products = design.T @ design
    excess = np.diag(noise * (prompts - terms))
    root = np.sqrt(excess)
    unreliable = float(np.linalg.eigvalsh(root @ np.linalg.solve(products, root)).max())
    if unreliable > 1 - RELIABLE:
        return _Fit(math.nan, math.nan, design, unreliable)
    inverse = np.linalg.inv(products - excess)
    slopes = inverse @ design.T @ y
    residual = float(((y - design @ slopes) ** 2).sum()) / (prompts - terms - 1)
    of_error = np.diag(noise) @ slopes
    middle = products * residual + (prompts - terms) * np.outer(of_error, of_error)
    error = math.sqrt(float((inverse @ middle @ inverse)[0, 0]))
    return _Fit(float(slopes[0]), error, design - design @ np.linalg.solve(products, excess), unreliable)


def _freedman_lane(design: Array, y: Array, observed: float, rng: np.random.Generator) -> tuple[float, str]:
    """The share of orders of residuals whose t of the first column is `observed` or above, and how it was found."""
    others = np.column_stack([np.ones(len(y)), design[:, 1:]])
    aside = np.eye(len(y)) - others @ np.linalg.pinv(others)
    if exact := len(y) <= EXACT_PROMPTS:
        order = _orders(len(y))
    else:
        order = rng.permuted(np.tile(np.arange(len(y)), (RANDOM_ORDERS, 1)), axis=1)
    # Fitted values added back fall out of the slope and of the residuals: they lie in the covariates' space.
    moved = (aside @ y)[order] @ aside
    x = aside @ design[:, 0]
    along = moved @ x / math.sqrt(float(x @ x))
    rest = (moved**2).sum(axis=1) - along**2
    t = along * np.sqrt((len(y) - others.shape[1] - 1) / np.maximum(rest, 1e-300))
    count = int(np.count_nonzero(t >= observed - 1e-9 * abs(observed)))
    if exact:
        return max(1, count) / len(t), f"Freedman-Lane over prompts, all {len(t)} orders"
    return (1 + count) / (1 + len(t)), f"Freedman-Lane over prompts, {len(t)} random orders"


@functools.cache
def _orders(n: int) -> npt.NDArray[np.int64]:
    """All orders [n!, n] of n prompts."""
    return np.array(list(itertools.permutations(range(n))))
