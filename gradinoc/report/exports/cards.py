"""Cards of exports, as Markdown: text from outside is shown and does nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from gradinoc.report.wording import finalize_markdown, number, signs, status_word


def rendered(template: str, **content: Any) -> str:
    """The text of a template of this package, filled in."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined, finalize=finalize_markdown, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"number": number, "word": status_word, "signs": signs}
    return environment.get_template(template).render(**content)
