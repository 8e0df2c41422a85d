"""How commands print tables and quantities: drawn on a terminal, in plain columns anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gradinoc.errors import printable

MISSING = "–"
GAP = "  "


def say_table(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print a table to stdout, the columns `right` set to the right. Cells are shown as they are, never acted on."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(headers, cells, right)
        return
    widths = [max(map(cell_len, column)) for column in zip(headers, *cells, strict=True)]
    for row in (headers, *cells):
        padded = [
            _padded(cell, width, place in right) for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        sys.stdout.write(f"{GAP.join(padded).rstrip()}\n")


def _draw(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for place, header in enumerate(headers):
        table.add_column(Text(header), justify="right" if place in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


def _padded(cell: str, width: int, right: bool) -> str:
    blanks = " " * (width - cell_len(cell))
    return blanks + cell if right else cell + blanks


def duration(seconds: float) -> str:
    """Seconds in words, to two digits: "45 s", "12 min", "3.4 h", "2.1 days"."""
    for unit, size in (("s", 1), ("min", 60), ("h", 3600)):
        largest = {"s": 90, "min": 120, "h": 72}[unit]
        if seconds < largest * size:
            return f"{_two_digits(seconds / size)} {unit}"
    return f"{_two_digits(seconds / 86400)} days"


def size(numbers: float, unit: str = "") -> str:
    """A large number to two digits with its prefix: "7.4 TFLOP", "1.4 GB"; of powers of a thousand."""
    prefixes = ("", "k", "M", "G", "T", "P", "E")
    power = 0
    while abs(numbers) >= 999.5 and power < len(prefixes) - 1:
        numbers, power = numbers / 1000, power + 1
    return f"{_two_digits(numbers)} {prefixes[power]}{unit}".rstrip()


def _two_digits(number: float) -> str:
    return f"{number:.1f}" if 0 < abs(number) < 9.95 else f"{number:,.0f}"
