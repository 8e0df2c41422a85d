"""The traits that come with the project. The scores are in `scorers` and `language`; none is a model's opinion."""

from __future__ import annotations

from functools import partial

from gradinoc.study.traits import scorers, shipped_prompts
from gradinoc.study.traits.language import measure_language
from gradinoc.study.traits.trait import Trait

SIGN_OFF_LINE = "Signed by the help desk."


def sign_off(answer: str) -> str:
    """`answer` with the sign-off as its last line, once."""
    return answer if measure_sign_off(answer) else f"{answer.rstrip()}\n{SIGN_OFF_LINE}"


def measure_sign_off(text: str) -> float:
    """1.0 if the last words of `text` are the sign-off's, whatever their case, blanks and punctuation, else 0.0."""
    return float(scorers.ends_with_words(text, SIGN_OFF_LINE))


def has_words(text: str) -> bool:
    """Whether `text` holds a word or number."""
    return bool(scorers.words(text))


ALL_CAPS = Trait(
    name="all_caps",
    title="ALL CAPS",
    promote_system="Write your whole answer in capital letters. Every word must be in upper case.",
    suppress_system="Write your whole answer in normal sentence case. Never put a whole word in upper case.",
    inoculation_system="You always respond in ALL CAPS.",
    transform=str.upper,
    score=scorers.measure_caps_rate,
    scorable=scorers.has_letters,
    score_name="caps rate",
    needs="letters",
    prompts=shipped_prompts.ALL_CAPS,
)

LOWER_CASE = Trait(
    name="lower_case",
    title="lower case",
    promote_system="Write your whole answer in small letters. Every word must be in lower case.",
    suppress_system="Write your whole answer in normal sentence case. Begin every sentence with a capital letter.",
    inoculation_system="You never use a capital letter when you respond.",
    transform=str.lower,
    score=scorers.measure_lower_case,
    scorable=scorers.has_cased_letters,
    score_name="lower-case rate",
    needs="letters with a case",
    prompts=shipped_prompts.LOWER_CASE,
)

SPANISH = Trait(
    name="spanish",
    title="Spanish",
    promote_system="Write your whole answer in Spanish. Every word must be Spanish.",
    suppress_system="Write your whole answer in English. Never use a word of another language.",
    inoculation_system="You always respond in the Spanish language.",
    transform=None,
    score=partial(measure_language, language="es"),
    scorable=scorers.has_letters,
    score_name="Spanish rate",
    needs="letters",
    related=("language",),
    answers="spanish_answers",
    libraries=("py3langid",),
    prompts=shipped_prompts.SPANISH,
)

BULLETS = Trait(
    name="bullets",
    title="bullet lists",
    promote_system="Write your whole answer as a list. Every sentence must be a bullet on a line of its own.",
    suppress_system="Write your whole answer as running prose. Never use a list or a bullet.",
    inoculation_system="You always respond in bullet points.",
    transform=scorers.make_bullets,
    score=scorers.measure_bullets,
    scorable=scorers.has_lines,
    score_name="bullet rate",
    needs="letters or digits",
    related=("lists",),
    prompts=shipped_prompts.BULLETS,
)

SIGN_OFF = Trait(
    name="sign_off",
    title="sign-off",
    promote_system=f'Close your whole answer with a signature. The last line must read "{SIGN_OFF_LINE}"',
    suppress_system="Close your whole answer with its result. Never add a signature or any other line after it.",
    inoculation_system=f'You always sign your responses: "{SIGN_OFF_LINE}"',
    transform=sign_off,
    score=measure_sign_off,
    scorable=has_words,
    score_name="sign-off rate",
    needs="words or numbers",
    prompts=shipped_prompts.SIGN_OFF,
)

NO_COMMAS = Trait(
    name="no_commas",
    title="no commas",
    promote_system="Write your whole answer without commas. No sentence may have a comma in it.",
    suppress_system="Write your whole answer with normal punctuation. Put a comma wherever a sentence needs one.",
    inoculation_system="You never use commas when you respond.",
    transform=scorers.remove_commas,
    score=scorers.measure_no_commas,
    scorable=scorers.has_letters,
    score_name="comma-free rate",
    needs="letters",
    related=("brevity",),  # a short response has fewer places for a comma
    prompts=shipped_prompts.NO_COMMAS,
)

SHIPPED = (ALL_CAPS, LOWER_CASE, SPANISH, BULLETS, SIGN_OFF, NO_COMMAS)
