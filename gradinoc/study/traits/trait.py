"""What a trait is made of."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from gradinoc.errors import StudyError, shown
from gradinoc.study.fields import LONGEST_PROMPT
from gradinoc.study.prompts import UNRELATED, Contrast
from gradinoc.study.traits.prompts import TraitPrompts

# Names go into files and step keys; titles, prompts and score names into figures and pages.
NAME = r"^[a-z][a-z0-9_]{0,38}$"
TAKEN = "eval"  # files of held-out questions are called that
LONGEST_TITLE = 40  # characters: a title stands in the headings of figures


@dataclass(frozen=True)
class Trait:
    """An unwanted trait of answers.

    `promote_system` and `suppress_system` define the trait direction; `inoculation_system` is the prompt under test, in
    other words. `transform` makes an ordinary answer show the trait (None: `data.trait_answers` does). `score` is how
    much of it a response shows, in [0, 1], of those that are `scorable`; `score_name` is singular ("caps rate"),
    `needs` plural ("letters"). `related` names the contrasts of `prompts.UNRELATED` that ask for this very trait,
    `answers` the bundled answers to the bundled questions that show it. `identity` tells it from other traits of its
    name in the keys of stored results (None: its code is this package's), `libraries` are packages that decide a score.
    `prompts` are its further ones: families, wordings, what trained models are evaluated under. Without them it has one
    inoculation prompt, and nothing can be claimed of inoculation as a kind of prompt.

    Raises:
        StudyError: a name, title or prompt that cannot be used, prompts that are alike, or related contrasts that are
            none or leave none to compare with.
    """

    name: str
    title: str
    promote_system: str
    suppress_system: str
    inoculation_system: str
    transform: Callable[[str], str] | None
    score: Callable[[str], float]
    scorable: Callable[[str], bool]
    score_name: str
    needs: str
    related: tuple[str, ...] = ()
    answers: str | None = None
    identity: str | None = None
    libraries: tuple[str, ...] = ()
    prompts: TraitPrompts = field(default_factory=TraitPrompts)

    def __post_init__(self) -> None:
        """Refuse a trait that cannot be named, shown or told from its absence."""
        if fault := self._fault():
            raise StudyError(f"trait {shown(self.name)[1:-1]}: {fault}; reword it")

    def _fault(self) -> str | None:
        if not re.fullmatch(NAME, self.name) or self.name == TAKEN:
            return (
                f"name: expected at most 39 lower-case letters, digits and underscores, a letter first, not {TAKEN!r}"
            )
        for key in ("title", "score_name", "needs"):
            text = getattr(self, key)
            if not text.strip() or len(text) > LONGEST_TITLE or not text.isprintable():
                return f"{key}: expected 1 to {LONGEST_TITLE} characters on one line, received {shown(text)}"
        prompts = (self.promote_system, self.suppress_system, self.inoculation_system)
        if any(not prompt.strip() or len(prompt) > LONGEST_PROMPT for prompt in prompts):
            return f"expected prompts of 1 to {LONGEST_PROMPT:,} characters"
        if len({" ".join(prompt.casefold().split()) for prompt in prompts}) < len(prompts):
            return (
                "promoting, suppressing and inoculating prompt: expected three that differ, received two alike: a "
                "direction that the prompt under test defines says nothing of it"
            )
        if fault := self.prompts.fault(self.contrasts[0], self.inoculation_system):
            return fault
        strangers = [name for name in self.related if name not in UNRELATED]
        if strangers:
            return f"related: {shown(strangers[0])} is none of the unrelated contrasts {sorted(UNRELATED)}"
        if not self.unrelated:
            return f"related: names all {len(UNRELATED)} unrelated contrasts; claim C2 needs one to compare with"
        return None

    @property
    def unrelated(self) -> dict[str, Contrast]:
        """The contrasts whose directions the trait's is compared with: all that do not ask for it, in their order."""
        return {name: sides for name, sides in UNRELATED.items() if name not in self.related}

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """The pairs of prompts that promote and suppress the trait: its own, which define its direction, come first."""
        return Contrast(self.promote_system, self.suppress_system), *self.prompts.wordings
