"""Print tables and quantities."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gradinoc.errors import printable

MISSING = "–"


def print_notes(lines: Sequence[str]) -> None:
    """Write notes to stderr: stdout has the result alone."""
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.stderr.flush()


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print a table, the columns `right` aligned right: ruled on a terminal, else plain columns of any width."""
    on_terminal = sys.stdout.isatty()
    table = Table(
        box=box.SIMPLE_HEAD if on_terminal else None, pad_edge=False, header_style="bold", show_header=any(headers)
    )
    for place, header in enumerate(headers):
        table.add_column(Text(header), justify="right" if place in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(highlight=False, width=None if on_terminal else 10_000)
    with console.capture() as page:
        console.print(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in page.get().splitlines()))


def duration(seconds: float) -> str:
    """Return seconds as text with two digits: "45 s", "12 min", "3.4 h", "2.1 days"."""
    for unit, size, limit in (("s", 1, 90), ("min", 60, 120), ("h", 3600, 72)):
        if seconds < limit * size:
            return f"{_two_digits(seconds / size)} {unit}"
    return f"{_two_digits(seconds / 86400)} days"


def size(numbers: float, unit: str = "") -> str:
    """Return a large number as text with two digits and a prefix: "7.4 TFLOP", "1.4 GB"."""
    prefixes = ("", "k", "M", "G", "T", "P", "E")
    power = 0
    while abs(numbers) >= 999.5 and power < len(prefixes) - 1:
        numbers, power = numbers / 1000, power + 1
    return f"{_two_digits(numbers)} {prefixes[power]}{unit}".rstrip()


def _two_digits(number: float) -> str:
    return f"{number:.1f}" if 0 < abs(number) < 9.95 else f"{number:,.0f}"
