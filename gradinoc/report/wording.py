"""How a report writes numbers and text: for readers, and so that text from elsewhere is shown and does nothing."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from gradinoc.claims.evidence.tables import DECISION, EVERYDAY, EXPECTED, GAP, MEASURES, PROJECTION, SCORE
from gradinoc.claims.rules.finding import Finding, Status
from gradinoc.stats.effect import Effect
from gradinoc.study.traits import Trait

NOT_MEASURED = "Not measured in this study."


def measures(trait: Trait) -> dict[str, str]:
    """Each measure of drift in words, with its unit; the first decides."""
    score = sentence(trait.score_name)
    words = {
        EXPECTED: f"{score} expected of sampled responses, held-out questions (fraction)",
        SCORE: f"{score} of greedy responses, held-out questions (fraction)",
        EVERYDAY: f"{score} of greedy responses, everyday requests (fraction)",
        DECISION: "Decision log-odds, held-out questions (nats)",
        GAP: "Answer loss gap, held-out questions (nats/token)",
        PROJECTION: "Projection on the trait direction (hidden-state units)",
    }
    return {measure: words[measure] for measure in MEASURES}


def shown(name: str) -> str:
    """The name of a condition, trait or position as figures and reports print it."""
    return name.replace("_", " ")


def sentence(words: str) -> str:
    """`words` as a sentence or title begins, whatever capitals they hold themselves."""
    return words[:1].upper() + words[1:]


def status_word(finding: Finding) -> str:
    """A finding's status in a word; gates hold or fail."""
    return word(finding.key, finding.status)


def word(key: str, status: str) -> str:
    """The status of the gate or claim of that key in a word; gates hold or fail."""
    if key.startswith("G"):
        return "holds" if status == Status.SUPPORTED else "fails"
    return str(status)


def number(value: Any) -> str:
    """Three significant digits with a true minus sign; a dash where there is no number."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.3g}".replace("-", "−")


def rounded(value: float) -> str:
    """`number`, in words where there is none."""
    return number(value) if math.isfinite(value) else "not measured"


def between(effect: Effect) -> str:
    """An interval, from end to end."""
    return f"{rounded(effect.low)} to {rounded(effect.high)}"


def side(
    effect: Effect, above: str = "lower", below: str = "higher", neither: str = "not shown to be lower or higher"
) -> str:
    """Which of three wordings an interval allows: above zero, below zero, or neither shown."""
    return above if effect.low > 0 else below if effect.high < 0 else neither


def listed(parts: Iterable[tuple[str, str]]) -> str:
    """Each name with its words, one after the other."""
    return "; ".join(f"{shown(name)} {words}" for name, words in parts)


def signs(text: str) -> str:
    """`text` of this package's own, its negative numbers with a true minus sign; of others' text nothing is changed."""
    return re.sub(r"(?<![\w.)])-(?=\.?\d)", "−", text)


def p_value(value: Any) -> str:
    """A p in two digits; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def p_of(effect: Effect) -> str:
    """An effect's p, and the value that it tests where that is not zero: "0.0004 against 0.25"."""
    told = p_value(effect.p)
    return f"{told} against {effect.against:g}" if effect.against and math.isfinite(effect.p) else told


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
