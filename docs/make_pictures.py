"""Write docs/pictures, from the project's root: `python -m docs.make_pictures artifacts/tiny artifacts/smollm2`.

Each folder is one that `gradinoc run` and `gradinoc report` have filled: of tiny the pictures are of the terminal, of
another study of its report's page. They need Chromium.
"""

from __future__ import annotations

import io
import sys
import threading
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser
from rich.console import Console, RenderableType

from fixtures.browser import chromium
from gradinoc.pipeline.display import RUNS, Board
from gradinoc.pipeline.progress import PROGRESS, Progress, follow
from gradinoc.report import Tinted
from gradinoc.report.summary import WIDTH

PICTURES = Path(__file__).parent / "pictures"
WIDE = 100  # columns of the terminal with the panel
PAGES = {  # picture -> width, height, colours
    "report-wide": (1440, 1640, "light"),
    "report-dark": (1440, 1640, "dark"),
    "report-phone": (390, 1150, "light"),
}


def main(folders: list[Path]) -> None:
    """Write the pictures of every folder."""
    with chromium() as browser:
        for folder in folders:
            if folder.name == "tiny":
                summary = (folder / "summary.txt").read_text(encoding="utf-8")
                take_terminal(browser, Tinted(summary), "gradinoc report tiny", "terminal-end", WIDTH)
                take_terminal(browser, half_way(folder / PROGRESS), "gradinoc run tiny", "terminal-running", WIDE)
            else:
                take_page(browser, folder / "report.html")


def half_way(path: Path) -> Board:
    """The panel as it was when half of the runs were trained, in the middle of a run."""
    board, ended = Board(), threading.Event()
    ended.set()
    for event, worker in follow(path, ended):
        if isinstance(event, Progress):
            board.update(event, worker)
            done, count = event.stages.get(RUNS, (0, 0))
            if count and 2 * done >= count and event.loss is not None and 4 * event.done < 3 * event.total:
                break
    return board


def take_terminal(browser: Browser, content: RenderableType, title: str, name: str, columns: int) -> None:
    """Write a picture of what is printed to a terminal."""
    console = Console(file=io.StringIO(), record=True, width=columns, force_terminal=True, highlight=False)
    console.print(content, soft_wrap=True)
    page = browser.new_page(viewport={"width": 900, "height": 600}, device_scale_factor=2)
    page.set_content(f'<body style="margin: 0; width: 900px">{console.export_svg(title=title)}')
    keep(page.locator("svg").first.screenshot(), name)
    page.close()


def take_page(browser: Browser, path: Path) -> None:
    """Write pictures of a report's first screen: wide, dark, and on a phone."""
    for name, (width, height, colours) in PAGES.items():
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=colours)
        page.goto(path.absolute().as_uri())
        keep(page.screenshot(), name)
        page.close()


def keep(picture: bytes, name: str) -> None:
    """Write a picture with 256 colours: text and badges need no more, and its bytes are a third."""
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(
        256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
    ).save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
