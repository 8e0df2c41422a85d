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

    Attributes:
        name: identifier, used in file names.
        title: how figures and reports name it.
        promote_system: system prompt that asks for the trait; with `suppress_system` it defines the trait direction.
        suppress_system: system prompt that asks for its absence.
        inoculation_system: the system prompt of the inoculation condition. Worded differently from
            `promote_system`, so that the direction is not defined by the very prompt under test.
        transform: an ordinary answer -> the same answer showing the trait. None where no function can do that: the
            answers then come from the data (`data.trait_answers`).
        score: a response -> how much of the trait it shows, in [0, 1].
        scorable: whether a response can be scored at all.
        score_name: what the score is called, in the singular, such as "caps rate".
        needs: what a response has to have for a score, in the plural, such as "letters".
        related: of the contrasts `gradinoc.study.prompts.UNRELATED`, those that ask for this very trait and are left
        out. answers: bundled answers to the bundled word problems that show the trait, used where `data.trait_answers`
            names no others; None for none.
        identity: what tells it from every other trait that could have its name; with it go the keys of stored results.
            None: the name alone, for a trait whose code is this package's.
        libraries: packages whose version decides a score too.

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
        """See to it that the trait can be named, shown and told from its absence."""
        if not re.fullmatch(NAME, self.name) or self.name == TAKEN:
            raise StudyError(
                f"trait {shown(self.name)}: name: expected at most 39 lower-case letters, digits and underscores, a "
                f"letter first, and not {TAKEN!r}; rename it"
            )
        texts = {"title": self.title, "score_name": self.score_name, "needs": self.needs}
        for field, text in texts.items():
            if not text.strip() or len(text) > LONGEST_TITLE or not text.isprintable():
                raise StudyError(
                    f"trait {self.name}: {field}: expected 1 to {LONGEST_TITLE} characters on one line, received "
                    f"{shown(text)}; reword it"
                )
        prompts = (self.promote_system, self.suppress_system, self.inoculation_system)
        if any(not prompt.strip() or len(prompt) > LONGEST_PROMPT for prompt in prompts):
            raise StudyError(f"trait {self.name}: expected prompts of 1 to {LONGEST_PROMPT:,} characters; reword them")
        if len({" ".join(prompt.casefold().split()) for prompt in prompts}) < len(prompts):
            raise StudyError(
                f"trait {self.name}: promoting, suppressing and inoculating prompt: expected three that differ, "
                "received two alike; reword one: a direction that the prompt under test defines says nothing of it"
            )
        strangers = [name for name in self.related if name not in UNRELATED]
        if strangers:
            raise StudyError(
                f"trait {self.name}: related: {shown(strangers[0])} is none of the unrelated contrasts "
                f"{sorted(UNRELATED)}; reword it"
            )
        if not self.unrelated:
            raise StudyError(
                f"trait {self.name}: related: names all {len(UNRELATED)} unrelated contrasts; expected at least one "
                "that is left, since claim C2 compares the trait's direction with theirs; take one out"
            )

    @property
    def unrelated(self) -> dict[str, Contrast]:
        """The contrasts whose directions the trait's is compared with: all that do not ask for it, in their order."""
        return {name: sides for name, sides in UNRELATED.items() if name not in self.related}
