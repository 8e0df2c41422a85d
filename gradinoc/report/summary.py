"""What a study came to, in lines for a terminal: gates and claims, the verdict, warnings, where the rest is."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from gradinoc.claims.finding import Finding, Status
from gradinoc.claims.verdict import Judgement, Verdict
from gradinoc.errors import printable
from gradinoc.report.wording import status_word
from gradinoc.stats.effect import Effect

WIDTH = 100  # columns; paths alone may be longer
MISSING = "-"
STYLES = {"holds": "green", "supported": "green", "fails": "red", "refuted": "red", "undecided": "yellow"}
PLACES = {"Report": "report.html", "Every number": "claims.csv"}
ROW = re.compile(rf"[GC]\d +(?P<word>{'|'.join(STYLES)})\b")
VERDICT = re.compile(rf"(?:{'|'.join(verdict.name.replace('_', ' ') for verdict in Verdict)}): ")


def closing_summary(judgement: Judgement, directory: Path | None = None) -> list[str]:
    """Lines of at most `WIDTH` columns: a row for each gate and claim, the verdict, any warnings.

    With a `directory`, where the report and the tables are: on lines as long as these paths.
    """
    findings = (*judgement.gates, *judgement.claims)
    failed = [gate for gate in judgement.gates if gate.status is not Status.SUPPORTED]
    said = [judgement.sentence, *(f"{gate.key} fails: {gate.statement}" for gate in failed)]
    if any(claim.status is Status.REFUTED for claim in judgement.claims):
        said.append("A refuted claim is a finding, not a fault: the apparatus worked, and this is what the data say.")
    if failed:
        said.append("A failed gate leaves the claims that rest on it undecided: mend the apparatus before concluding.")
    said += [f"Warning: {warning}" for warning in judgement.warnings]
    lines = [*_lines(_table(findings)), ""]
    for each in said:
        lines += _hanging(each)
    if directory is not None:
        lines += ["", *(f"{what}: {printable(directory / name)}" for what, name in PLACES.items())]
    return lines


def tinted(summary: str) -> Tinted:
    """The text of a summary for rich to print: its verdicts in colour, and narrower on a narrow terminal."""
    return Tinted(summary)


@dataclass(frozen=True)
class Tinted:
    """A summary's text as rich draws it; where there is no terminal it is as it was written."""

    summary: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One text for each line."""
        lines = self.summary.splitlines()
        if console.is_terminal and options.max_width < WIDTH:
            lines = narrowed(lines, options.max_width)
        warned = False
        for line in lines:
            warned = line.startswith("Warning: ") or (warned and line.startswith(" "))
            text = Text(line, "yellow" if warned else "bold" if VERDICT.match(line) else "")
            if found := ROW.match(line):
                text.stylize("bold", 0, 2)
                text.stylize(STYLES[found["word"]], *found.span("word"))
            yield text


def narrowed(lines: Sequence[str], columns: int) -> list[str]:
    """A summary's lines for a narrow terminal: the numbers of a finding below its name, sentences wrapped anew."""
    table = list(takewhile(bool, lines))
    cut = table[0].find("estimate") if table else -1
    while cut > 0 and any(line[cut : cut + 1].strip() for line in table):
        cut -= 1
    if cut <= 0:
        return list(lines)
    indent = " " * max(0, min(table[0].find("effect"), columns - max(len(line) - cut for line in table)))
    halves = [half for line in table for half in (line[:cut].rstrip(), f"{indent}{line[cut:]}".rstrip()) if half]
    sentences: list[str] = []
    for line in lines[len(table) :]:
        if line.startswith("  ") and sentences:
            sentences[-1] += line[1:]
        else:
            sentences.append(line)
    return [*halves, *(part for each in sentences for part in _hanging(each, columns))]


def _table(findings: Sequence[Finding]) -> Table:
    """Key, status, effect, estimate, interval, p and n of each finding; a dash for what a design cannot give."""
    effects = [finding.main for finding in findings]
    levels = {effect.level for effect in effects if effect is not None and math.isfinite(effect.low)}
    table = Table.grid(padding=(0, 1, 0, 0))
    interval = f"{100 * levels.pop():.4g} % interval" if len(levels) == 1 else "interval"
    for name in ("", "", "effect"):
        table.add_column(name, no_wrap=not name)
    for name in ("estimate", interval, "p", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.show_header = True
    for finding, effect in zip(findings, effects, strict=True):
        table.add_row(*map(_text, (finding.key, status_word(finding), *_numbers(effect))))
    return table


def _numbers(effect: Effect | None) -> tuple[str, ...]:
    """Name, estimate, interval, p, n and what it counts of an effect in words."""
    if effect is None:
        return (MISSING,) * 6
    known = math.isfinite(effect.low) and math.isfinite(effect.high)
    return (
        effect.name,
        f"{effect.estimate:+.3g}" if math.isfinite(effect.estimate) else MISSING,
        f"[{effect.low:+.2g}, {effect.high:+.2g}]" if known else MISSING,
        f"{effect.p:.2g}" if math.isfinite(effect.p) else MISSING,
        str(effect.n),
        effect.unit,
    )


def _text(words: str) -> Text:
    """Words as they are: never markup, and nothing that a terminal would act on."""
    return Text(printable(words))


def _lines(table: Table) -> list[str]:
    """A table as plain lines."""
    page = io.StringIO()
    # Of a notebook rich would take no heed of the file.
    console = Console(
        file=page, width=WIDTH, color_system=None, force_terminal=False, force_jupyter=False, legacy_windows=False
    )
    console.print(table)
    return [line.rstrip() for line in page.getvalue().splitlines()]


def _hanging(words: str, columns: int = WIDTH) -> list[str]:
    """A paragraph, all lines but the first indented; a word that is too long for a line has one of its own."""
    return textwrap.wrap(
        printable(words), columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    ) or [""]
