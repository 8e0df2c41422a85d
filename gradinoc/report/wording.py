"""How a report writes numbers and text: for readers, and so that text from elsewhere is shown and does nothing."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

from markupsafe import Markup

from gradinoc.claims.finding import Finding, Status


def status_word(finding: Finding) -> str:
    """A finding's status in a word; gates hold or fail."""
    if finding.key.startswith("G"):
        return "holds" if finding.status is Status.SUPPORTED else "fails"
    return str(finding.status)


def number(value: Any) -> str:
    """Three significant digits with a true minus sign; a dash where there is no number."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.3g}".replace("-", "−")


def signs(text: str) -> str:
    """`text` of this package's own, its negative numbers with a true minus sign; of others' text nothing is changed."""
    return re.sub(r"(?<![\w.)])-(?=\.?\d)", "−", text)


def p_value(value: Any) -> str:
    """A p in two digits; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def visible(value: Any) -> Any:
    """`value`, characters that steer a terminal, a printer or the direction of text replaced by U+FFFD."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    kept = "\n\t\u200d"  # the joiner holds emoji together
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf") and c not in kept else c for c in value)


def markdown_text(text: str) -> str:
    """`text` so that Markdown shows it and does nothing with it: no markup, no HTML, no links, no table cells."""
    escaped = re.sub(r"([\\`*_\[\]<>&|~#$@])", r"\\\1", " ".join(visible(text).split()))
    escaped = re.sub(r"(?i)\b(www)\.", r"\1\\.", escaped).replace("://", ":\\//")
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", re.sub(r"^([-+=!])", r"\\\1", escaped))


def finalize_markdown(value: Any) -> Any:
    """What a Markdown template writes for `value`."""
    return markdown_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value
