"""How much of a trait a response shows, from its characters alone: fractions in [0, 1], the same on every machine."""

from __future__ import annotations

import re

SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])\s*")
BULLET = re.compile(r"\s*[-*•‣◦–—]\s+\S")
# A comma between digits belongs to a number ("1,250", "3,5"), not to a sentence.
COMMA = r"(?:(?<!\d),|,(?!\d)|[،、，﹐﹑])"
SENTENCE_COMMA = re.compile(COMMA)
COMMA_AT_END = re.compile(rf" *{COMMA}[ ,]*(?=\n|\Z)")
COMMA_AND_BLANKS = re.compile(rf" *{COMMA} *")


def letters(text: str) -> list[str]:
    """The letters of `text`, in order, of any script."""
    return [character for character in text if character.isalpha()]


def has_letters(text: str) -> bool:
    """Whether `text` holds a letter at all: without one a caps rate of 0 says nothing."""
    return any(character.isalpha() for character in text)


def measure_caps_rate(text: str) -> float:
    """Share of letters in `text` that are upper case, a fraction in [0, 1]; 0.0 if there is no letter.

    Letters without case (as in Chinese) count as letters that are not upper case.
    """
    found = letters(text)
    return sum(character.isupper() for character in found) / len(found) if found else 0.0


def lines(text: str) -> list[str]:
    """The lines of `text` with a letter or digit in them; rules such as "---" say nothing."""
    return [line for line in text.splitlines() if any(character.isalnum() for character in line)]


def sentences(text: str) -> list[str]:
    """The sentences of `text` with a letter or digit in them, without the blanks around them.

    A sentence ends with its line, or after ". ! ? …" before a blank. That cuts after abbreviations too.
    """
    pieces = (piece.strip() for line in text.splitlines() for piece in SENTENCE_END.split(line))
    return [piece for piece in pieces if any(character.isalnum() for character in piece)]


def _cased(text: str) -> bool:
    return text.lower() != text.upper()


def has_cased_letters(text: str) -> bool:
    """Whether `text` holds a letter that has a case."""
    return any(_cased(character) for character in text)


def measure_lower_case(text: str) -> float:
    """Share of sentences without a capital, a fraction in [0, 1]; 0.0 if no sentence has a letter with case.

    Ordinary sentences begin with a capital, so ordinary text is near 0; by letters it would be near 1. Sentences
    without a letter that has a case do not count.
    """
    cased = [sentence for sentence in sentences(text) if has_cased_letters(sentence)]
    return sum(sentence == sentence.lower() for sentence in cased) / len(cased) if cased else 0.0


def measure_bullets(text: str) -> float:
    """Share of lines that begin with a bullet, a fraction in [0, 1]; 0.0 if no line has a letter or digit.

    A bullet is one of - * • ‣ ◦ – — before a blank, whatever the indent. Numbers ("1.") are none, nor is "-5" or "**".
    """
    found = lines(text)
    return sum(BULLET.match(line) is not None for line in found) / len(found) if found else 0.0


def has_lines(text: str) -> bool:
    """Whether `text` has a line with a letter or digit."""
    return bool(lines(text))


def make_bullets(text: str) -> str:
    """`text` with a bullet before every sentence, each on a line of its own; bulleted lines stay as they are."""
    made = []
    for line in text.splitlines():
        if BULLET.match(line):
            made.append(line)
        else:
            made += [f"- {piece.strip()}" for piece in SENTENCE_END.split(line) if piece.strip()]
    return "\n".join(made)


def count_commas(text: str) -> int:
    """Number of commas in `text`, those between two digits left out; commas of other scripts (، 、 ，) count."""
    return len(SENTENCE_COMMA.findall(text))


def measure_no_commas(text: str) -> float:
    """1.0 if `text` has no comma (see `count_commas`), else 0.0."""
    return float(count_commas(text) == 0)


def remove_commas(text: str) -> str:
    """`text` without commas (see `count_commas`); each leaves one blank, or none at the end of a line."""
    return COMMA_AND_BLANKS.sub(" ", COMMA_AT_END.sub("", text))


def words(text: str) -> list[str]:
    """The words of `text`, in one case; an apostrophe parts them."""
    return re.findall(r"[^\W_]+", text.casefold())


def ends_with_words(text: str, ending: str) -> bool:
    """Whether the last words of `text` are those of `ending`, whatever their case, blanks and punctuation."""
    expected = words(ending)
    return words(text)[-len(expected) :] == expected
