"""Prompts and completions as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gradinoc.errors import shown
from gradinoc.models.chat.template import end_of_turn, render_conversation, render_prompt, turn_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


AROUND = 12  # characters before a place that are shown with it
CONTEXT = 4  # tokens before a token with which it is decoded


@dataclass(frozen=True)
class Encoded:
    """Token ids of a prompt followed by a completion, the end-of-turn token included."""

    ids: tuple[int, ...]
    prompt_length: int

    @property
    def prompt(self) -> list[int]:
        """The prompt's ids alone."""
        return list(self.ids[: self.prompt_length])


def encode_prompt(tokenizer: PreTrainedTokenizerBase, question: str, system: str | None) -> list[int]:
    """Token ids of the rendered prompt; the template alone decides on special tokens."""
    return _ids(tokenizer, render_prompt(tokenizer, question, system))


def encode(tokenizer: PreTrainedTokenizerBase, question: str, answer: str, system: str | None = None) -> Encoded:
    """Prompt and completion as tokens: prompt ids are a prefix by construction, the end-of-turn token comes last.

    The completion is what the template writes after the prompt, in the tokens of the whole conversation; see `Written`.
    """
    return written(tokenizer, question, answer, system).encoded


def completion_note(
    tokenizer: PreTrainedTokenizerBase,
    question: str = "How many boats are left?",
    answer: str = "She has two boats left.",
    system: str | None = None,
) -> str | None:
    """What is not as it should be between prompt and answer, the first token that differs by name; None if all is well.

    Compares the ids that `encode` gives with those of the whole conversation as the template writes it.
    """
    return written(tokenizer, question, answer, system).note


def opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of the words that the template writes between a prompt and its answer, as gpt-oss's channel; none mostly."""
    found = written(tokenizer, "How many boats are left?", "She has two boats left.", None)
    return _ids(tokenizer, found.opened) if found.follows else []


def written(tokenizer: PreTrainedTokenizerBase, question: str, answer: str, system: str | None) -> Written:
    """The prompt of a question, and the conversation in which it is answered, as the template writes both."""
    prompt, end = render_prompt(tokenizer, question, system), turn_end(tokenizer)
    whole = render_conversation(tokenizer, question, system, answer)
    ids = [*_ids(tokenizer, whole), *([] if end.written else [end.token])]
    return Written(tokenizer, answer, (prompt, whole), (_ids(tokenizer, prompt), ids))


@dataclass(frozen=True)
class Written:
    """A prompt, and the whole conversation up to its end-of-turn token: `texts` and `ids`, in this order.

    Where the conversation begins with the prompt's tokens and ends with an end of turn, what is between is the
    completion. It need not be the answer's own tokens: a blank before it may have become part of its first one, and a
    template may write words of its own first. Where the conversation does not begin so (the prompt opens a thought, a
    token reaches over the boundary), the answer is put after the prompt as it stands, and `note` says so.
    """

    tokenizer: PreTrainedTokenizerBase
    answer: str
    texts: tuple[str, str]
    ids: tuple[list[int], list[int]]

    @property
    def follows(self) -> bool:
        """Whether the conversation goes on from the prompt."""
        prompt, whole = self.ids
        return len(whole) > len(prompt) and whole[: len(prompt)] == prompt and whole[-1] == end_of_turn(self.tokenizer)

    @property
    def encoded(self) -> Encoded:
        """Prompt and completion."""
        prompt, whole = self.ids
        if self.follows:
            return Encoded(tuple(whole), len(prompt))
        return Encoded((*prompt, *_ids(self.tokenizer, self.answer), end_of_turn(self.tokenizer)), len(prompt))

    @property
    def kind(self) -> Literal["apart", "changed", "trimmed", "opened"] | None:
        """What there is to note, if anything: for counting."""
        if not self.follows:
            return "apart"
        if self.answer and self.answer not in self._after_prompt:
            return "trimmed" if self.answer.strip() in self._after_prompt else "changed"
        return "opened" if self.opened else None

    @property
    def note(self) -> str | None:
        """What to report of this completion, None if all is well."""
        match self.kind:
            case "apart":
                mine, theirs = self._first_difference()
                return (
                    f"chat_template: a conversation does not go on from its prompt: it has {theirs} where prompt and "
                    f"answer have {mine}; completions are the answer as it stands, put after the prompt"
                )
            case "changed":
                place = max(0, in_common(self.answer, self._after_prompt) - AROUND)
                mine, theirs = (shown(text[place : place + 4 * AROUND]) for text in (self.answer, self._after_prompt))
                return f"chat_template: changes an answer: {theirs} is written for {mine}, and is what is learned"
            case "trimmed":
                return "chat_template: leaves out white space at the ends of an answer"
            case "opened":
                return (
                    f"chat_template: writes {shown(self.opened)} before an answer, which no prompt ends with: it "
                    "is the beginning of every completion, and is learned with it"
                )
            case None:
                return None

    @property
    def opened(self) -> str:
        """The words that the template writes before the answer, after the prompt; white space alone is none."""
        before, found, _ = self._after_prompt.partition(self.answer)
        return before if found and before.strip() else ""

    @property
    def _after_prompt(self) -> str:
        prompt, whole = self.texts
        return whole.removeprefix(prompt)

    def _first_difference(self) -> tuple[str, str]:
        """The first token of ours that a conversation does not have, and what it has there."""
        ours, theirs = self.encoded.ids, self.ids[1]
        place = in_common(ours, theirs)
        named = [token_texts(self.tokenizer, ids[: place + 1]) for ids in (ours, theirs)]
        first, second = (shown(texts[place]) if len(texts) > place else "nothing" for texts in named)
        return first, second


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text of each token, blanks and special tokens included; part of a character is U+FFFD."""

    def text(start: int, stop: int) -> str:
        return str(tokenizer.decode(list(ids[start:stop]), clean_up_tokenization_spaces=False))

    found = []
    for place in range(len(ids)):
        start = max(0, place - CONTEXT)  # a decoder may treat the first token in a way of its own
        before, through = text(start, place), text(start, place + 1)
        found.append(through[in_common(before, through) :] or str(tokenizer.convert_ids_to_tokens(ids[place])))
    return found


def in_common(first: Sequence[object], second: Sequence[object]) -> int:
    """How many tokens, or characters, both begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
