"""A study at a glance, drawn by rich in whatever width there is. What comes from outside is text and never markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from rich.box import ROUNDED
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gradinoc.errors import printable

FRAMED = 64  # columns from which on there is room for a frame
# Columns of the table of workers: how wide they are, and how wide a terminal has to be for them.
COLUMNS = {"": (16, 100), "done": (9, 0), "loss": (7, 48), "alignment": (9, 60), "per s": (7, 80), "left": (8, 72)}
LEAST = 12  # columns of what a worker is at
MISSING = "-"


@dataclass(frozen=True)
class Row:
    """A worker: its name, what it is at, parts done of how many, loss, alignment, parts a second, seconds left."""

    worker: str
    at_work: str
    done: int = 0
    total: int = 0
    loss: float | None = None
    alignment: float | None = None
    per_second: float | None = None
    left: float | None = None

    def cells(self) -> dict[str, Text | ProgressBar]:
        """Column -> what stands in it; a dash where nothing is known."""
        return {
            "": self._bar() if self.total else Text(),
            "done": text(f"{self.done}/{self.total}" if self.total else MISSING),
            "loss": text(MISSING if self.loss is None else f"{self.loss:.3f}"),
            "alignment": text(MISSING if self.alignment is None else f"{self.alignment:+.4f}"),
            "per s": text(MISSING if self.per_second is None else f"{self.per_second:.3g}"),
            "left": text(MISSING if self.left is None else clock(self.left)),
        }

    def _bar(self) -> ProgressBar:
        return ProgressBar(self.total, self.done, COLUMNS[""][0], complete_style="cyan", finished_style="green")


@dataclass(frozen=True)
class Glance:
    """What there is to see.

    Attributes:
        title: the study.
        counted: how many steps are done.
        stages: stage -> steps done, steps in all.
        rows: the workers.
        lines: what is said below them.
    """

    title: str
    counted: str
    stages: Mapping[str, tuple[int, int]]
    rows: Sequence[Row]
    lines: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """A panel as wide as there is room, without a frame where that is little."""
        width = options.max_width
        framed = width >= FRAMED
        inner = width - 4 if framed else width
        body = Group(self._stages(inner), self._workers(inner, width), *map(text, filter(None, self.lines)))
        if framed:
            yield Panel(
                body,
                box=ROUNDED,
                title=text(self.title, "bold default"),
                title_align="left",
                subtitle=text(self.counted, "default"),
                subtitle_align="right",
                border_style="bright_black",
                width=width,
            )
        else:
            yield text(f"{self.title}, {self.counted}", "bold")
            yield body

    def _stages(self, width: int) -> Text:
        """Each stage with its steps done, as many in a line as fit: whole ones green, those not begun dim."""
        lines, used = Text(), 0
        for stage, (done, count) in self.stages.items():
            said = f"{stage} {done}/{count}"
            if used and used + 2 + len(said) > width:
                lines.append("\n")
                used = 0
            lines.append("  " if used else "")
            lines.append(printable(said), "green" if done == count else "bold" if done else "dim")
            used += len(said) + (2 if used else 0)
        return lines

    def _workers(self, inner: int, width: int) -> Table:
        """A row for each worker, with as many columns as there is room for."""
        chosen = {name: columns for name, (columns, needed) in COLUMNS.items() if width >= needed}
        named = max((len(row.worker) for row in self.rows), default=0)
        taken = sum(columns + 2 for columns in chosen.values()) + (named + 2 if named else 0)
        table = Table.grid(padding=(0, 2, 0, 0))
        for columns in ([named] if named else []) + [max(LEAST, inner - taken)]:
            table.add_column(width=columns, no_wrap=True, overflow="crop")
        for columns in chosen.values():
            table.add_column(width=columns, justify="right", no_wrap=True, overflow="crop")
        table.add_row(*[Text()] * bool(named), text("at work", "dim"), *(text(name, "dim") for name in chosen))
        for row in self.rows:
            cells = row.cells()
            who = [text(row.worker, "cyan")] if named else []
            table.add_row(*who, text(row.at_work), *(cells[name] for name in chosen))
        return table


def text(words: str, style: str = "") -> Text:
    """Words as they are, on one line, with nothing in them that a terminal or rich would act on."""
    return Text(printable(words), style)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, and days where there are any."""
    return str(timedelta(seconds=round(seconds)))
