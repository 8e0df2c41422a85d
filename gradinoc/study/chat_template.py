"""Chat templates: the plain one for models without any, a study's own, and what day it is in all of them."""

from __future__ import annotations

import os
import re
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path

from gradinoc.errors import ModelError, reason

# Not the day of the run: a study's steps would have different prompts. Llama 3's templates write this one where the
# library tells them none.
DAY = date(2024, 7, 26)
PLAIN = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content + '\n\n' }}"
    "{% elif message.role == 'user' %}{{ 'User: ' + message.content + '\n\n' }}"
    "{% else %}{{ 'Assistant: ' + message.content + eos_token + '\n\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
SHIPPED = {"plain": PLAIN}
FILE = ".jinja"

CLOCK = "strftime_now"  # what transformers gives a template to ask for the time
MARK = "{# gradinoc: what the time is #}"
RANDOM = re.compile(r"\|\s*random\b|\bfilter\s+random\b|['\"]random['\"]|\{[{%][^}]*\blipsum\b")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


def read_template(given: str, folder: Path) -> str:
    """What `given` stands for in a study: the name of a template that we ship, or the text of a template.

    A path (`*.jinja`) stands for the text in the file, which is looked for in `folder` first, then in the working
    directory.

    Raises:
        ValueError: no such name or file, or a file that holds no template.
    """
    if given in SHIPPED or "{" in given:
        return given
    if not given.endswith(FILE):
        raise ValueError(f"expected one of {sorted(SHIPPED)}, the path of a {FILE} file, or a template's text")
    beside = folder / given
    path = beside if os.path.isfile(beside) else Path(given)  # noqa: PTH113 - Path's own raises for a long name
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({reason(error)}); expected a Jinja template in UTF-8; mend the file or "
            "give another"
        ) from error
    if "{" not in text:
        raise ValueError(f"{path} says the same whatever the messages are; expected a Jinja template")
    return text


@lru_cache
def dated(template: str, moment: date = DAY) -> str:
    """`template`, told that it is `moment` whenever it is rendered: midnight, if that is a day; in English.

    transformers would tell it the time of the rendering, in the language of the process, and takes no function in its
    place: a macro of that name hides it. A template that asks for no time is handed back as it is.

    Raises:
        ModelError: it draws at random, so that no two renderings need be alike.
    """
    bare = _bare(template)
    if RANDOM.search(bare):
        raise ModelError(
            "chat_template: draws at random, so that a prompt is another each time; expected a template that writes "
            "the same for the same messages; give one as model.chat_template"
        )
    if CLOCK not in bare:
        return bare
    signs = ", ".join(f"({sign!r}, {text!r})" for sign, text in _signs(moment).items())
    replace = f"{{% for sign, text in [{signs}] %}}{{% set now.text = now.text | replace(sign, text) %}}{{% endfor %}}"
    body = f"{{% set now = namespace(text=format) %}}{replace}{{{{ now.text }}}}"
    return f"{MARK}{{% macro {CLOCK}(format) %}}{body}{{% endmacro %}}\n{bare}"


def is_dated(template: str) -> bool:
    """Whether `template` has been told what the time is."""
    return template.startswith(MARK)


def _bare(template: str) -> str:
    """`template` as it was before it was told the time."""
    return template.partition("\n")[2] if is_dated(template) else template


def _signs(moment: date) -> dict[str, str]:
    """Sign of a time's format -> what it stands for, as glibc has it in English; "%%" comes first and last."""
    now = moment if isinstance(moment, datetime) else datetime(moment.year, moment.month, moment.day)
    day, month, hour = DAYS[now.weekday()], MONTHS[now.month - 1], now.hour % 12 or 12
    numbers = {sign: now.strftime(f"%{sign}") for sign in "dmHIMSjyUWVuwGf"} | {"Y": str(now.year)}
    words = {"A": day, "a": day[:3], "B": month, "b": month[:3], "h": month[:3], "p": "PM" if now.hour >= 12 else "AM"}
    padded = {"e": f"{now.day:2}", "k": f"{now.hour:2}", "l": f"{hour:2}"}
    times = {"T": f"{now:%H:%M:%S}", "R": f"{now:%H:%M}", "r": f"{now:%I:%M:%S} {words['p']}"}
    days = {"D": f"{now:%m/%d/%y}", "F": f"{now.year}-{now:%m-%d}"}
    whole = {
        "x": days["D"], "X": times["T"], "c": f"{words['a']} {words['b']} {padded['e']} {times['T']} {now.year}",
        "P": words["p"].lower(), "C": f"{now.year // 100:02}", "z": "", "Z": "", "n": "\n", "t": "\t",
    }  # fmt: skip
    signs = {f"%{sign}": text for sign, text in (numbers | words | padded | times | days | whole).items()}
    signs |= {f"%-{sign}": text.lstrip("0 ") or "0" for sign, text in (numbers | padded).items()}
    signs |= {f"%^{sign}": text.upper() for sign, text in words.items()}
    return {"%%": "\ue000", **signs, "\ue000": "%"}
