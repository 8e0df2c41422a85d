"""A trait's prompts besides its own three: its families, wordings of its contrast, what its models are tried under."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from gradinoc.errors import shown
from gradinoc.study.fields import PromptText, Section, whole
from gradinoc.study.prompts.contrasts import Contrast
from gradinoc.study.prompts.family import plain
from gradinoc.study.prompts.grammar import MANNERS, templates


class TraitPrompts(Section):
    """Further prompts of a trait; what is left out is not there, and what rests on it cannot be claimed.

    `inoculations` is the whole family, from a hint to an order with its reason, the trait's own inoculation prompt in
    its place; the first `hints` of them do not ask for the trait, and are a family of their own. Without it the prompt
    is no unit, and C1, C4 and C6 can say nothing of inoculation as a kind. `antis` ask for the opposite. `wordings` are
    further pairs that promote and suppress the trait: without them the specification curve has one direction. `manners`
    are four ways to say "with the trait" at a sentence's end ("in block capitals"), of which
    `gradinoc.study.prompts.grammar` makes the rephrased prompt: without them conditionalization cannot be told from
    inoculation by rephrasing. `negated` is the inoculation prompt negated, `paraphrased` in other words, `same_shape` a
    sentence like it about something else: without them C6 has fewer evaluation prompts.
    """

    inoculations: tuple[PromptText, ...] = ()
    hints: Annotated[int, whole(0, 100)] = 0
    antis: tuple[PromptText, ...] = ()
    wordings: tuple[Contrast, ...] = ()
    manners: tuple[PromptText, ...] = ()
    negated: PromptText | None = None
    paraphrased: PromptText | None = None
    same_shape: PromptText | None = None

    @property
    def given(self) -> dict[str, Any]:
        """What is given, as JSON has it: part of a trait's identity, which what is left out must not change."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @property
    def texts(self) -> list[str]:
        """Every prompt, the rephrased one's wordings left out."""
        single = (self.negated, self.paraphrased, self.same_shape)
        sides = [side for contrast in self.wordings for side in contrast]
        return [*self.inoculations, *self.antis, *sides, *(text for text in single if text is not None)]

    def fault(self, own: Contrast, inoculation: str) -> str | None:
        """What is wrong with them beside the trait's `own` pair and its `inoculation` prompt; None if nothing is."""
        if any(not text.strip() for text in (*self.texts, *self.manners)):
            return "prompts: expected text, received a blank one"
        if self.inoculations and inoculation not in self.inoculations[self.hints :]:
            return (
                "prompts.inoculations: expected the trait's own inoculation prompt among them, in its place from hint "
                "to order, or no further prompts (prompts=TraitPrompts())"
            )
        if self.manners and (len(self.manners) != MANNERS or not all(map(_ends_open, self.manners))):
            return f"prompts.manners: expected {MANNERS} phrases without a stop, received {shown(list(self.manners))}"
        others = self.texts if self.inoculations else [inoculation, *self.texts]
        times = Counter(map(plain, (*own, *others, *templates(self.manners))))
        twice = next((text for text in times if times[text] > 1), None)
        return f"prompts: expected texts that differ, received {shown(twice)} twice" if twice else None


def _ends_open(manner: str) -> bool:
    return manner[-1].isalnum() or manner[-1] in "\"')"
