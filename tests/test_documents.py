"""What the README and the tutorials say to do is done, as it is written there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from markdown_it import MarkdownIt

import gradinoc

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
PAGES = [ROOT / "README.md", *TUTORIALS, ROOT / "datasets" / "README.md", ROOT / "benchmarks" / "README.md"]
FILE = re.compile(r"# file: (\S+)\n")


class Block(NamedTuple):
    """A fenced block of a page: its language, what else stands behind that, and its text."""

    language: str
    manner: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type == "fence":
            language, _, manner = token.info.strip().partition(" ")
            yield Block(language, manner, token.content)


def carry_out(block: Block, folder: Path) -> None:
    """Save a block that names its file, run one of Python or shell; fail with all that it wrote."""
    if named := FILE.match(block.text):
        (folder / named[1]).write_text(block.text, encoding="utf-8")
        return
    commands = {"python": [sys.executable, "-c", block.text], "sh": ["bash", "-euo", "pipefail", "-c", block.text]}
    assert block.language in commands, f"a block of {block.language!r} that names no file: nobody can follow it"
    own = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {**os.environ, "PATH": own, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    done = subprocess.run(
        commands[block.language], cwd=folder, env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorial_can_be_followed_from_an_empty_folder(page, tmp_path):
    """Every block, in order, but those that are marked as long."""
    for block in blocks(page):
        if block.manner != "long":
            carry_out(block, tmp_path)


def test_readme_python_and_study_files_work(tmp_path):
    """Blocks of Python run in an empty folder, in order, on files that the page itself names."""
    for block in blocks(ROOT / "README.md"):
        if block.language in ("python", "toml"):
            carry_out(block, tmp_path)


def lines_of(language: str) -> list[tuple[str, str]]:
    """(page, command) of each line of such blocks, in which a command is one line; comments are left out."""
    return [
        (page.name, line.partition(" #")[0].strip())
        for page in PAGES
        for block in blocks(page)
        if block.language == language and not FILE.match(block.text)
        for line in block.text.splitlines()
        if line.strip() and not line.startswith("#")
    ]


MAKE = sorted({line for _, line in lines_of("sh") if line.startswith("make ")})
PYTEST = sorted({line for _, line in lines_of("sh") if line.startswith("pytest ")})
GRADINOC = sorted({line for _, line in lines_of("sh") if line.startswith("gradinoc ")})


@pytest.mark.parametrize("line", MAKE)
def test_make_command_is_there(line):
    """Make knows what to do, without doing it."""
    done = subprocess.run(["make", "-n", *shlex.split(line)[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", PYTEST)
def test_pytest_command_is_understood(line, tmp_path):
    """Options and names of studies are known: the tests are collected. A model or data of one's own is left out."""
    words = shlex.split(line)[1:]
    own = [place for place, word in enumerate(words) if "path/to" in word or "my-study.toml" in word]
    for place in reversed(own):
        words[place - (words[place - 1] == "--set") : place + 1] = [] if words[place - 1] == "--set" else ["tiny"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", *words],
        cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("line", GRADINOC)
def test_gradinoc_command_is_known(line):
    """The command and each of its options are in its own help."""
    command, *words = shlex.split(line)[1:]
    if command.startswith("-"):
        command, words = "", [command, *words]
    done = subprocess.run(
        [sys.executable, "-m", "gradinoc", *([command] if command else []), "--help"],
        cwd=ROOT, env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert option in done.stdout, f"{option} is no option of {command}"


def test_reference_has_a_page_for_every_module_and_shows_public_names(tmp_path):
    """`make docs` writes it from the docstrings; public names, looked up when asked for, are on the package's page."""
    made = [sys.executable, ROOT / "docs" / "make_reference.py", tmp_path]
    done = subprocess.run(made, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {str(page.relative_to(tmp_path)).removesuffix(".html") for page in tmp_path.rglob("*.html")}
    files = [path for path in (ROOT / "gradinoc").rglob("*.py") if path.name != "__main__.py"]
    modules = {str(path.relative_to(ROOT).with_suffix("")).removesuffix("/__init__") for path in files}
    assert pages == modules | {"index"}
    page = (tmp_path / "gradinoc.html").read_text(encoding="utf-8")
    assert all(f'id="{name}"' in page for name in gradinoc.__all__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_of_a_page_lead_somewhere(page):
    """Files that are linked or shown are there; a link within the page has its heading."""
    text = page.read_text(encoding="utf-8")
    headings = {re.sub(r"[^\w\- ]", "", line.lstrip("# ")).strip().lower().replace(" ", "-")
                for line in text.splitlines() if line.startswith("#")}  # fmt: skip
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|srcset|href)=\"([^\"]+)\"", text)
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in headings, f"{target}: no such heading"
        elif not target.startswith(("http:", "https:")):
            assert (page.parent / target.partition("#")[0]).exists(), f"{target}: no such file"
