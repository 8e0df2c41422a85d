"""How far a number is from where it would have decided otherwise, as a number and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from gradinoc.claims.gates import Status
from gradinoc.stats.effect import Effect

ALIGNMENT = "alignment, other - inoculation"  # every such contrast at once, as if inoculation's alignment were another
DRIFT = "drift, neutral - inoculation"
NO_INTERVAL = "No other estimate would have: there is no interval, which one group of examples cannot give."


@dataclass(frozen=True)
class Turn:
    """A finding turns into `becomes` where `quantity` is more than `change` away from what was measured.

    `change` has a sign: a positive one is an increase. Spread and every other number stay as they are; at `change`
    itself either may be said, as rounding falls. `becomes` is None where it is another rule's turn then.
    """

    quantity: str
    change: float
    becomes: Status | None


@dataclass(frozen=True)
class Otherwise:
    """What would have changed a finding: in words, with one more line a number, and as the numbers behind the words."""

    text: str
    turns: tuple[Turn, ...] = ()
    details: tuple[str, ...] = ()


def half_width(effect: Effect) -> float:
    """Half the length of the effect's t interval: an estimate above it has an interval above zero."""
    return effect.estimate - effect.low


def reach(effect: Effect, margin: float, alpha: float) -> float:
    """The largest estimate, either way, that is equivalent to zero within `margin`; negative where none is."""
    return margin - float(stats.t.ppf(1 - alpha, effect.df)) * effect.standard_error


def above_zero(effect: Effect, unit: str = "") -> str:
    """Where an effect's interval lies to zero, and what it takes for all of it to lie above."""
    if not math.isfinite(effect.low):
        return f"{effect.name}: there is no interval"
    unit = unit and f" {unit}"
    found = f"{effect.name}: {effect.estimate:+.3g}{unit}, its lower end"
    if effect.low > 0:
        return f"{found} {effect.low:.3g} above zero"
    return f"{found} at {effect.low:+.3g}; with this spread it takes an estimate above {half_width(effect):+.3g}"


def short_of_zero(effects: Sequence[Effect]) -> float:
    """By how much all of the effects have to grow until every interval lies above zero; negative where they do."""
    return max(-effect.low for effect in effects)


def named(effects: tuple[Effect, ...], name: str) -> Effect:
    """The effect of that name."""
    return next(effect for effect in effects if effect.name == name)
