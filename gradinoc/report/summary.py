"""What a study came to, in lines for a terminal: gates and claims, the verdict, warnings, where the rest is."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from gradinoc.claims.rules.finding import Finding, Status
from gradinoc.claims.rules.verdict import Judgement, Verdict, not_run
from gradinoc.errors import printable
from gradinoc.report.wording import status_word
from gradinoc.stats.effect import Effect

WIDTH = 80  # columns; paths alone may be longer
INDENT = " " * 15  # of a finding's numbers, below the name of its effect
STYLES = {"holds": "green", "supported": "green", "fails": "red", "refuted": "red", "undecided": "yellow"}
PLACES = {
    "Report": "report.html",
    "What would change our mind": "what-would-change-our-mind.md",
    "Every number": "claims.csv",
}
ROW = re.compile(rf"(?P<key>[GC]\d+[a-z]?) +(?P<word>{'|'.join(STYLES)})\b")
VERDICT = re.compile(rf"(?:{'|'.join(verdict.name.replace('_', ' ') for verdict in Verdict)}): ")


def closing_summary(judgement: Judgement, directory: Path | None = None, beside: Sequence[str] = ()) -> list[str]:
    """Lines of at most `WIDTH` columns: two for each gate and claim, the verdict, any warnings.

    `beside` are sentences that stand after the verdict's. With a `directory`, where the report and the tables are: on
    lines as long as these paths.
    """
    findings = (*judgement.gates, *judgement.claims)
    failed = [gate for gate in judgement.gates if gate.status is not Status.SUPPORTED]
    said = [judgement.sentence, *filter(None, beside)]
    said += [f"{gate.key} fails: {gate.statement}" for gate in failed]
    if absent := not_run(judgement.claims):
        said.append(f"Not run: {', '.join(absent)}; a verdict that needs it cannot be reached.")
    if any(claim.status is Status.REFUTED for claim in judgement.claims):
        said.append("A refuted claim is a finding, not a fault: the apparatus worked, and this is what the data say.")
    if failed:
        said.append("A failed gate leaves the claims that rest on it undecided: mend the apparatus before concluding.")
    said += [f"Warning: {warning}" for warning in judgement.warnings]
    lines = [line for finding in findings for line in _finding(finding)] + [""]
    for each in said:
        lines += _hanging(each)
    if directory is not None:
        lines += ["", *(f"{what}: {printable(directory / name)}" for what, name in PLACES.items())]
    return lines


def deciding(finding: Finding) -> Effect | None:
    """The effect that a summary shows: of a gate that fails the first that fails it, else the finding's headline."""
    if finding.key.startswith("G") and finding.status is not Status.SUPPORTED:
        short = next((criterion.key for criterion in finding.criteria if not criterion), "")
        return finding.get(short) or finding.main
    return finding.main


def numbers(effect: Effect) -> str:
    """Estimate, interval, p, n and what it counts; what a design cannot give is left out."""
    parts = [f"{effect.estimate:+.3g}" if math.isfinite(effect.estimate) else "not measurable"]
    if math.isfinite(effect.low) and math.isfinite(effect.high):
        parts[0] += f" [{effect.low:+.3g}, {effect.high:+.3g}]"
    if math.isfinite(effect.p):
        parts.append(f"p {effect.p:.2g}" + (f" against {effect.against:g}" if effect.against else ""))
    return ", ".join([*parts, f"n {effect.n} {effect.unit}"])


def _finding(finding: Finding) -> list[str]:
    """Key, status and effect of a finding, and its numbers below."""
    effect = deciding(finding)
    head = f"{finding.key:<3} {status_word(finding):<10} {finding.claim if effect is None else effect.name}"
    parts = [head] if effect is None else [head, f"{INDENT}{numbers(effect)}"]
    return [
        line
        for part in parts
        for line in textwrap.wrap(printable(part), WIDTH, subsequent_indent=INDENT, break_on_hyphens=False)
    ]


@dataclass(frozen=True)
class Tinted:
    """A summary's text as rich draws it: its verdicts in colour, and narrower on a narrow terminal.

    Where there is no terminal it is as it was written.
    """

    summary: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One text for each line."""
        lines = self.summary.splitlines()
        if console.is_terminal and options.max_width < WIDTH:
            lines = narrowed(lines, options.max_width)
        warned = False
        for line in lines:
            warned = line.startswith("Warning: ") or (warned and line.startswith(" "))
            text = Text(line, "yellow" if warned else "")
            if found := VERDICT.match(line):
                text.stylize("bold", *found.span())
            if found := ROW.match(line):
                text.stylize("bold", *found.span("key"))
                text.stylize(STYLES[found["word"]], *found.span("word"))
            yield text


def narrowed(lines: Sequence[str], columns: int) -> list[str]:
    """A summary's lines for a narrow terminal: everything is wrapped anew."""
    table = list(takewhile(bool, lines))
    short: list[str] = []
    for line in table:
        short += textwrap.wrap(line, columns, subsequent_indent=INDENT[: columns // 4], break_on_hyphens=False)
    sentences: list[str] = []
    for line in lines[len(table) :]:
        if line.startswith("  ") and sentences:
            sentences[-1] += line[1:]
        else:
            sentences.append(line)
    return [*short, *(part for each in sentences for part in _hanging(each, columns))]


def _hanging(words: str, columns: int = WIDTH) -> list[str]:
    """A paragraph, all lines but the first indented; a word that is too long for a line has one of its own."""
    return textwrap.wrap(
        printable(words), columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    ) or [""]
