"""What a gate or claim is, and what it finds: measured effects, a pure decision over them, a status with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.rules.criteria import Criterion
from gradinoc.stats.effect import Effect
from gradinoc.study.rules import Rules


class Status(StrEnum):
    """What became of a claim; for a gate SUPPORTED means that it holds, REFUTED that it fails."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


def in_words(value: float, form: str = ".2g") -> str:
    """A number in a statement, `form` as `format` takes it; never NaN."""
    return format(value, form) if math.isfinite(value) else "not measurable"


@dataclass(frozen=True)
class Measured:
    """What a gate or claim rests on.

    Attributes:
        effects: by key, in the order in which they are reported.
        statement: what they say, in a sentence or two.
        facts: further numbers that decide, by name.
    """

    effects: Mapping[str, Effect]
    statement: str = ""
    facts: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Write each effect's key on it."""
        object.__setattr__(self, "effects", {key: replace(each, key=key) for key, each in self.effects.items()})

    def __getitem__(self, key: str) -> Effect:
        """The effect of that key."""
        return self.effects[key]

    def __contains__(self, key: str) -> bool:
        """Whether that effect was measured."""
        return key in self.effects


@dataclass(frozen=True)
class Outcome:
    """What a rule makes of measured effects: a status, why, and every criterion that was looked at."""

    status: Status
    reason: str
    criteria: tuple[Criterion, ...] = ()


@dataclass(frozen=True)
class Finding:
    """A gate or claim, what the numbers say in one sentence, and which rule made of it what it is."""

    key: str
    claim: str
    status: Status
    statement: str
    reason: str
    effects: tuple[Effect, ...] = ()
    rests_on: tuple[str, ...] = ()
    criteria: tuple[Criterion, ...] = ()
    headline: str = ""
    failed_gates: tuple[str, ...] = ()

    def __getitem__(self, key: str) -> Effect:
        """The effect of that key.

        Raises:
            KeyError: it was not measured; the message lists those that were.
        """
        found = self.get(key)
        if found is None:
            raise KeyError(f"{self.key} has no effect {key!r}; it has {[effect.key for effect in self.effects]}")
        return found

    def get(self, key: str) -> Effect | None:
        """The effect of that key, None where it was not measured."""
        return next((effect for effect in self.effects if effect.key == key), None)

    @property
    def main(self) -> Effect | None:
        """The effect that stands for the finding in a summary: its headline, else its first; None where it has none."""
        return self.get(self.headline) or next(iter(self.effects), None)


class Measure(Protocol):
    """From a study's tables to what decides; with `secondary=False` without the effects that only accompany it."""

    def __call__(self, evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
        """Measure."""


@dataclass(frozen=True)
class Claim:
    """A gate or claim as a rule: `measure` turns tables into effects, `decide` effects into an outcome.

    Attributes:
        key: such as "C1".
        text: what is claimed.
        rests_on: keys of the gates that have to hold.
        rule: how it is decided, in words, with the study's bars as fields (see `words`).
        headline: key of the effect that stands for it in a summary; empty for the first.
        needs: the tables without which it is not run; empty if a study always has its tables.
        asked: whether the study, which has them, asks for it at all; None if it does.
        measure: tables to effects.
        decide: effects to an outcome; pure.
    """

    key: str
    text: str
    measure: Measure
    decide: Callable[[Measured, Rules], Outcome]
    rests_on: tuple[str, ...] = ()
    rule: str = ""
    headline: str = ""
    needs: tuple[str, ...] = ()
    asked: Callable[[Evidence], bool] | None = None

    def ran(self, evidence: Evidence) -> bool:
        """Whether the study measured what it takes."""
        if any(getattr(evidence, name).empty for name in self.needs):
            return False
        return self.asked is None or self.asked(evidence)

    def judge(self, evidence: Evidence, rules: Rules, gates: Sequence[Finding] = ()) -> Finding:
        """The finding from the evidence; undecided where a gate on which it rests failed, whatever its numbers.

        Raises:
            ValueError: a number that decides is missing, or a gate on which it rests was not judged.
        """
        found = self.measure(evidence, rules)
        outcome, failed = self.decide(found, rules), self.failed(gates)
        status, reason = outcome.status, outcome.reason
        if failed:
            words = " ".join(f"{gate.key}: {gate.statement}" for gate in failed)
            keys = listed([gate.key for gate in failed])
            status, reason = Status.UNDECIDED, f"Undecided because {keys} failed, on which it rests. {words}"
        return Finding(
            self.key, self.text, status, found.statement, reason, tuple(found.effects.values()),
            self.rests_on, outcome.criteria, self.headline, tuple(gate.key for gate in failed),
        )  # fmt: skip

    def failed(self, gates: Sequence[Finding]) -> list[Finding]:
        """The gates on which it rests that failed.

        Raises:
            ValueError: such a gate is not among `gates`.
        """
        by_key = {gate.key: gate for gate in gates}
        absent = [gate for gate in self.rests_on if gate not in by_key]
        if absent:
            raise ValueError(f"{self.key} rests on the gates {self.rests_on}, and {absent} were not judged")
        return [by_key[gate] for gate in self.rests_on if by_key[gate].status is not Status.SUPPORTED]

    def words(self, rules: Rules) -> str:
        """How the claim is decided, in two or three sentences with the study's bars; empty for a gate."""
        return self.rule.format(
            level=f"{100 * (1 - rules.alpha):g} %",
            alpha=f"{rules.alpha:g}",
            lead=f"{rules.lead:g}",
            equal_loss=f"{100 * rules.equal_loss:g} %",
            share=f"{rules.share:g}",
            room=f"{rules.room:g}",
            turned=f"{rules.turned:g}",
            carried=f"{rules.carried:g}",
            removed=f"{rules.removed:g}",
            alike=f"{100 * rules.alike:g} %",
        )


def listed(keys: Sequence[str]) -> str:
    """`C1`, `C1 and C2`, `C1, C2 and C3`."""
    *first, last = keys
    return f"{', '.join(first)} and {last}" if first else last


def undecided(reason: str, *criteria: Criterion) -> Outcome:
    """An outcome that decides nothing, and why."""
    return Outcome(Status.UNDECIDED, reason, criteria)


def supported(reason: str, *criteria: Criterion) -> Outcome:
    """An outcome in favour of the claim."""
    return Outcome(Status.SUPPORTED, reason, criteria)


def refuted(reason: str, *criteria: Criterion) -> Outcome:
    """An outcome against the claim."""
    return Outcome(Status.REFUTED, reason, criteria)


def held(rule: str, *criteria: Criterion) -> Outcome:
    """The outcome of a gate: it holds where all of its criteria do."""
    holds = all(criteria)
    return (supported if holds else refuted)(f"{'Holds' if holds else 'Fails'}: the rule is {rule}.", *criteria)
