"""Chat templates: the text of a prompt, and the token that ends an assistant's turn."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from gradinoc.errors import ModelError, shown
from gradinoc.study.chat_template import CLOCK, dated, is_dated

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


ADDRESS = re.compile(r" at 0x[0-9a-f]+>", re.IGNORECASE)  # as Python writes an object that says nothing else of itself
MOMENTS = (datetime(2001, 2, 3, 4, 5, 6), datetime(1999, 12, 31, 23, 58, 59))  # they differ in every part


def render_prompt(tokenizer: PreTrainedTokenizerBase, question: str, system: str | None) -> str:
    """The prompt's text up to where the assistant begins; reasoning is switched off where a template has it (Qwen3).

    `system` None puts no system message, and some templates (Qwen2.5, SmolLM2) then insert a default of their own; an
    empty string is an explicit empty system message, a third case. A template that asks for the day gets the
    study's, or a fixed one (see `gradinoc.study.chat_template`): a prompt is the same whenever it is rendered.

    Raises:
        ModelError: the template would write another prompt each time.
    """
    return _render(tokenizer, _messages(question, system), opens=True)


def render_conversation(tokenizer: PreTrainedTokenizerBase, question: str, system: str | None, answer: str) -> str:
    """The text of an answered question, up to and with the token that ends the answer, if the template writes one."""
    text = _render(tokenizer, _messages(question, system, answer), opens=False)
    return text.removesuffix(turn_end(tokenizer).after)


def tells_the_time(tokenizer: PreTrainedTokenizerBase, systems: Iterable[str | None]) -> bool:
    """Whether a prompt under one of the `systems` is another when the date or the time of day is another."""
    template = tokenizer.get_chat_template()
    if CLOCK not in template:
        return False
    one, other = (dated(template, moment) for moment in MOMENTS)
    for system in systems:
        asked = _messages("1", system)
        with suppress(Exception):  # a template may refuse a system message, or the lack of one
            if _render(tokenizer, asked, True, one) != _render(tokenizer, asked, True, other):
                return True
    return False


def _messages(question: str, system: str | None, answer: str | None = None) -> list[dict[str, str]]:
    turns = {"system": system, "user": question, "assistant": answer}
    return [{"role": role, "content": text} for role, text in turns.items() if text is not None]


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], opens: bool, template: str | None = None
) -> str:
    """The text of a conversation; if it `opens`, up to where the assistant begins to answer."""
    own = template or tokenizer.get_chat_template()
    text = str(
        tokenizer.apply_chat_template(
            messages,
            chat_template=own if is_dated(own) else dated(own),
            tokenize=False,
            add_generation_prompt=opens,
            enable_thinking=False,
        )
    )
    _ensure_no_address(text, messages)
    return text


def _ensure_no_address(text: str, messages: list[dict[str, str]]) -> None:
    """Ensure that the template writes no Python object's address, which differs between processes."""
    for found in ADDRESS.finditer(text):
        if not any(found.group() in message["content"] for message in messages):
            raise ModelError(
                f"chat_template: writes {shown(text[: found.end()])}, where an object lies in memory, which is "
                "elsewhere in each process; expected text; mend it and give it as model.chat_template"
            )


@dataclass(frozen=True)
class TurnEnd:
    """How a template ends an assistant's turn: the token's id, whether the template writes it, and what comes after."""

    token: int
    written: bool
    after: str  # the token; or the answer, where the template writes no such token


_ENDS: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[object, TurnEnd]] = WeakKeyDictionary()


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the token that the chat template puts after an assistant's answer; the eos token where it puts none.

    Raises:
        ValueError: the template puts none and the tokenizer has no eos token.
    """
    return turn_end(tokenizer).token


def turn_end(tokenizer: PreTrainedTokenizerBase) -> TurnEnd:
    """How the chat template ends an assistant's turn; cached while template and tokens stay the same."""
    now = (tokenizer.get_chat_template(), tokenizer.eos_token, len(tokenizer))
    known = _ENDS.get(tokenizer)
    if known is None or known[0] != now:
        known = _ENDS[tokenizer] = (now, _find_end(tokenizer))
    return known[1]


def _find_end(tokenizer: PreTrainedTokenizerBase) -> TurnEnd:
    text = _render(tokenizer, _messages("1", None, "zq"), opens=False)
    # In either case: changed answers are reported elsewhere.
    closing, eos = text[text.lower().rindex("zq") + 2 :], tokenizer.eos_token_id
    # Some fine-tuned models close turns with an added token that is not marked as special.
    ends = {token: str(added) for token, added in tokenizer.added_tokens_decoder.items() if str(added).strip()}
    if eos is not None:
        ends.setdefault(eos, tokenizer.eos_token)
    token = next((each for each in tokenizer(closing, add_special_tokens=False)["input_ids"] if each in ends), None)
    if token is not None:
        return TurnEnd(int(token), True, closing.partition(ends[token])[2])
    if eos is None:
        raise ValueError("The chat template closes no turn and the tokenizer has no eos token: completions cannot end")
    return TurnEnd(int(eos), False, closing)
