"""Prompts as a model reads them, and one example token by token with its loss mask, for plan, report and doctor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from gradinoc.models.chat.encoding import Encoded, encode, token_texts
from gradinoc.models.chat.template import render_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_CHARACTERS = 2000  # of a prompt; what is longer is cut in the middle
OPEN = "chosen while the study runs"  # a prompt that is
MOST_TOKENS = 200  # of what carries loss, and of what does not


@dataclass(frozen=True)
class Rendered:
    """One question under every prompt, and its answer under one of them.

    Attributes:
        question: as it stands in the data.
        prompts: name -> the prompt's text, special tokens included; None where the system prompt is still to be chosen.
        under: the name of the prompt that the example is shown under.
        tokens: the example's tokens, as text, and whether each carries loss.
    """

    question: str
    prompts: dict[str, str | None]
    under: str
    tokens: list[tuple[str, bool]]

    @property
    def parts(self) -> list[tuple[bool, list[str]]]:
        """(whether they carry loss, tokens), in order; where they are many, the middle is left out."""
        runs = groupby(self.tokens, key=lambda each: each[1])
        return [(carries, _cut([text for text, _ in tokens])) for carries, tokens in runs]

    def rows(self) -> list[tuple[str, str]]:
        """(name, text) of every prompt and of the example's tokens, quoted: on one line each, nothing acted on."""
        prompts = [(name, OPEN if text is None else quoted(text)) for name, text in self.prompts.items()]
        names = {True: f"{self.under}: with loss", False: f"{self.under}: without loss"}
        return [*prompts, *((names[carries], " ".join(map(quoted, tokens))) for carries, tokens in self.parts)]


def rendered_prompts(
    tokenizer: PreTrainedTokenizerBase, systems: Mapping[str, str | None], question: str
) -> dict[str, str]:
    """Name -> the prompt of `question` under that system prompt (None: no system message), special tokens included."""
    return {name: render_prompt(tokenizer, question, system) for name, system in systems.items()}


def label_mask(tokenizer: PreTrainedTokenizerBase, encoded: Encoded) -> list[tuple[str, bool]]:
    """(text, whether it carries loss) of every token of an example: those of the completion do, its end included."""
    texts = token_texts(tokenizer, encoded.ids)
    return [(text, place >= encoded.prompt_length) for place, text in enumerate(texts)]


def render(
    tokenizer: PreTrainedTokenizerBase,
    systems: Mapping[str, str | None],
    question: str,
    answer: str,
    under: str,
) -> Rendered:
    """A question under each of the `systems` (see `rendered_prompts`), and its answer `under` one of them."""
    prompts = rendered_prompts(tokenizer, systems, question)
    mask = label_mask(tokenizer, encode(tokenizer, question, answer, systems[under]))
    return Rendered(question, dict(prompts), under, mask)


def quoted(text: str) -> str:
    """`text` in quotes, whatever is no sign to be seen spelled out; the middle is left out where it is long."""
    half = MOST_CHARACTERS // 2
    if len(text) <= MOST_CHARACTERS:
        return repr(text)
    return f"{text[:half]!r} ... {len(text) - 2 * half:,} characters ... {text[-half:]!r}"


def _cut(tokens: Sequence[str]) -> list[str]:
    half = MOST_TOKENS // 2
    if len(tokens) <= MOST_TOKENS:
        return list(tokens)
    return [*tokens[:half], f" ... {len(tokens) - 2 * half:,} tokens ... ", *tokens[-half:]]
