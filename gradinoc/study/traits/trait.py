"""What a trait is made of."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from gradinoc.errors import StudyError, shown
from gradinoc.study.prompts import UNRELATED, Contrast

# Names go into files and step keys; titles, prompts and score names into figures and pages.
NAME = r"^[a-z][a-z0-9_]{0,38}$"
TAKEN = "eval"  # files of held-out questions are called that
LONGEST_TITLE = 40  # characters: a title stands in the headings of figures
LONGEST_PROMPT = 2_000  # characters of a system prompt


@dataclass(frozen=True)
class Trait:
    """An unwanted trait of answers.

    `promote_system` and `suppress_system` define the trait direction; `inoculation_system` is the prompt under test, in
    other words. `transform` makes an ordinary answer show the trait (None: `data.trait_answers` does). `score` is how
    much of it a response shows, in [0, 1], of those that are `scorable`; `score_name` is singular ("caps rate"),
    `needs` plural ("letters"). `related` names the contrasts of `prompts.UNRELATED` that ask for this very trait,
    `answers` the bundled answers to the bundled questions that show it. `identity` tells it from other traits of its
    name in the keys of stored results (None: its code is this package's), `libraries` are packages that decide a score.

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

    def __post_init__(self) -> None:
        """Refuse a trait that cannot be named, shown or told from its absence."""
        if fault := self._fault():
            raise StudyError(f"trait {shown(self.name)[1:-1]}: {fault}; reword it")

    def _fault(self) -> str | None:
        if not re.fullmatch(NAME, self.name) or self.name == TAKEN:
            return (
                f"name: expected at most 39 lower-case letters, digits and underscores, a letter first, not {TAKEN!r}"
            )
        for field in ("title", "score_name", "needs"):
            text = getattr(self, field)
            if not text.strip() or len(text) > LONGEST_TITLE or not text.isprintable():
                return f"{field}: expected 1 to {LONGEST_TITLE} characters on one line, received {shown(text)}"
        prompts = (self.promote_system, self.suppress_system, self.inoculation_system)
        if any(not prompt.strip() or len(prompt) > LONGEST_PROMPT for prompt in prompts):
            return f"expected prompts of 1 to {LONGEST_PROMPT:,} characters"
        if len({" ".join(prompt.casefold().split()) for prompt in prompts}) < len(prompts):
            return (
                "promoting, suppressing and inoculating prompt: expected three that differ, received two alike: a "
                "direction that the prompt under test defines says nothing of it"
            )
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
