"""A question and its answer, as a line of a file holds them: read, checked, cleaned of GSM8K's marks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from gradinoc.data import formats
from gradinoc.errors import DataError, reason, shown
from gradinoc.study.traits.trait import Trait

LONGEST_LINE = 1 << 24  # bytes: a file without line ends is not read into memory as one
LONGEST_TEXT = 1_000_000  # characters: more than the context of a model holds
HALF_PAIR = re.compile("[\ud800-\udfff]")  # half of a surrogate pair: JSON can write it, UTF-8 cannot
# GSM8K's marks, and nothing that code, headings or templates would write: `1 << bits`, `#### Summary`, `<<name>>`.
ANNOTATION = re.compile(r"<<[-+*/().,%^$ 0-9]++=[-+$ ]*[.,/0-9]*[0-9]\.?%? *>>")
CLOSING = re.compile(r"\s*####\s*[-+$]*[.,/0-9]*[0-9]\.?%?")
SYSTEM = ("system", "developer")  # roles of a message that a study's conditions would bring


@dataclass(frozen=True)
class Example:
    """A question and its ordinary (trait-free) answer.

    `index` counts the lines of the source from 0. `template` is what questions of one making share, `shown` an answer
    from `data.trait_answers` that shows the trait, `cleaned` whether GSM8K's marks were taken out of `answer`.
    """

    index: int
    question: str
    answer: str
    template: str | None = None
    shown: str | None = None
    cleaned: bool = field(default=False, compare=False)

    @property
    def group(self) -> str:
        """Questions of one group are alike, so inference counts groups, not questions, as independent."""
        return self.template or f"line {self.index}"


def showing(example: Example, trait: Trait) -> str:
    """The answer of `example` that shows `trait`: the data's own, else the ordinary one transformed.

    Raises:
        DataError: neither is there.
    """
    if example.shown is not None:
        return example.shown
    if trait.transform is None:
        raise DataError(
            f"trait {trait.name}: no rule makes an answer show it, and question {example.index + 1} brings none that "
            "does; give answers that show it as data.trait_answers"
        )
    return trait.transform(example.answer)


def clean_answer(answer: str) -> str:
    """`answer` without GSM8K's calculator annotations `<<48/2=24>>` and last line `#### 24`; else as it stands.

    Format: Cobbe et al. 2021, https://arxiv.org/abs/2110.14168.
    """
    plain = ANNOTATION.sub("", answer)
    before, _, last = plain.rstrip().rpartition("\n")
    return before.rstrip() if CLOSING.fullmatch(last) else plain


def read_examples(path: Path, name: str | None = None) -> list[Example]:
    """Examples of a JSONL file in either form, in file order; texts as they stand, but for GSM8K's marks in answers.

    The forms are chat, `{"messages": [{"role": "user", ...}, {"role": "assistant", ...}]}` or the list of messages by
    itself (a request may come without an answer), and OpenAI's raw GSM8K, `{"question": ..., "answer": ...}`.
    Messages call the file `name`, or by its path.

    Raises:
        DataError: no file, one of another format, or a line that is in neither form, or whose text no model could
            read; the message names file, line and field.
    """
    place = str(path) if name is None else name
    fault = formats.no_file(path)
    if fault is not None:
        raise DataError(f"{place}: {fault}")
    try:
        with path.open("rb") as file:
            fault = formats.other_file(file.peek(8)[:8], path.name)
            if fault is not None:
                raise DataError(f"{place}:1: {fault}")
            lines = enumerate(_lines(file, place), start=1)
            return [_parse(line, f"{place}:{number}", number - 1) for number, line in lines if line.strip()]
    except OSError as error:
        raise DataError(f"{place}: cannot be read ({reason(error)}); mend the file or give another") from error


def _lines(file: BinaryIO, place: str) -> Iterator[bytes]:
    for number, line in enumerate(iter(partial(file.readline, LONGEST_LINE + 1), b""), start=1):
        if len(line) > LONGEST_LINE:
            raise DataError(f"{place}:{number}: longer than {LONGEST_LINE:,} bytes; expected one JSON object a line")
        yield line


def _parse(line: bytes, place: str, index: int) -> Example:
    try:
        record = json.loads(line.decode("utf-8-sig").rstrip(), object_pairs_hook=_without_repeats)
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 (byte {error.start + 1}); save the file in that encoding") from error
    except json.JSONDecodeError as error:
        several = index == 0 and error.pos >= len(error.doc)  # the first line ends before its value does
        what = {"[": f"; {formats.ONE_A_LINE}", "{": "; put each on a line of its own"}.get(
            error.doc[:1] if several else "", ""
        )
        raise DataError(
            f"{place}: not JSON ({error.msg}, column {error.colno}); expected one JSON object a line{what}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: no JSON to be used ({reason(error)}); mend or delete the line") from error
    return example_of(record, place, index)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len({*keys}) < len(keys):
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shown(repeated)} stands twice in one object")
    return dict(pairs)


def example_of(record: Any, place: str, index: int) -> Example:
    """The example in a line or row; `place` says which it is, `index` counts it from 0.

    Raises:
        DataError: it is in neither form, or its text cannot be used; the message names place and field.
    """
    if formats.is_array(record):
        raise DataError(f"{place}: a JSON array of records; expected one JSON object a line; {formats.ONE_A_LINE}")
    if isinstance(record, list) and record and isinstance(record[0], dict):
        record = {"messages": record}
    if isinstance(record, dict) and "messages" in record:
        question, answer = _from_messages(record["messages"], f"{place}: messages")
    elif isinstance(record, dict) and {"question", "answer"} <= set(record):
        question, answer = (_text(record[field], f"{place}: {field}") for field in ("question", "answer"))
    else:
        raise DataError(
            f'{place}: expected {{"messages": [...]}} or {{"question": ..., "answer": ...}}, received {shown(record)}; '
            + formats.other_record(record)
        )
    _alone(record, formats.BESIDE_QUESTION, f"{place}: ", "question")
    template = record.get("template")
    if template is not None:
        template = str(template) if type(template) is int else _text(template, f"{place}: template")
    plain = clean_answer(answer)
    return Example(index, question, plain if plain.strip() else "", template, cleaned=plain != answer)


def _text(value: Any, place: str) -> str:
    """`value`, if a model can read it and a file hold it."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place}: expected text, received {shown(value)}; fill it in or delete the line")
    if len(value) > LONGEST_TEXT:
        raise DataError(
            f"{place}: {len(value):,} characters; expected at most {LONGEST_TEXT:,}, no model reads more; "
            "shorten or delete the line"
        )
    if half := HALF_PAIR.search(value):
        raise DataError(
            f"{place}: character {half.start() + 1} is {shown(half[0])}, half of a surrogate pair; expected whole "
            "characters; mend or delete the line"
        )
    return value


def _alone(record: Mapping[str, Any], keys: Sequence[str], place: str, what: str) -> None:
    """Raise a `DataError` where something that belongs to the text of `what` stands beside it."""
    for key in keys:
        if record.get(key):
            raise DataError(
                f"{place}{key}: stands beside the {what}, which alone is read; expected nothing, received "
                f"{shown(record[key])}; put it into the {what}, or delete it or the line"
            )


def _from_messages(messages: Any, place: str) -> tuple[str, str]:
    """Question and answer of a list of messages; a request's answer is empty."""
    shape = isinstance(messages, list) and all(isinstance(message, dict) for message in messages)
    roles = [message.get("role") for message in messages] if shape else None
    if roles and any(role in SYSTEM for role in roles if isinstance(role, str)):
        raise DataError(
            f"{place}: a system message is there already, received roles {shown(roles)}; expected a user and an "
            "assistant message: system prompts come from the study's conditions; delete it"
        )
    if roles not in (["user"], ["user", "assistant"]):
        raise DataError(
            f"{place}: expected a user and an assistant message, received roles {shown(roles)}; "
            + (formats.other_messages(messages) if shape else "mend or delete the line")
        )
    for number, message in enumerate(messages):
        _alone(message, formats.BESIDE_CONTENT, f"{place}[{number}].", "content")
        if message.get("weight", 1) != 1:  # some formats leave turns out of the loss so
            raise DataError(
                f"{place}[{number}].weight: expected 1, received {shown(message['weight'])}; delete it or the line"
            )
    contents = [_text(message.get("content"), f"{place}[{n}].content") for n, message in enumerate(messages)]
    return contents[0], contents[1] if len(contents) > 1 else ""
