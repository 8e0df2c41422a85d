"""What the README and the pages under `docs/` say is there, and does what they say."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
from markdown_it import MarkdownIt

import gradinoc
from gradinoc.models.sources.locate import locate
from gradinoc.study.loading import load_study

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*/README.md"))]
FILE = re.compile(r"# file: (\S+)\n")
MODEL_OF_README = "HuggingFaceTB/SmolLM2-135M-Instruct"


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


def run(command: list[object], folder: Path, **settings: str) -> str:
    """What the command printed; it has to end well."""
    own = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **own, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", **settings},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_studies_of_pages_load(tmp_path, monkeypatch):
    """Every study file that a reader is told to save: a key that is gone, or a budget that is too large, is told."""
    loaded = []
    for page in PAGES:
        folder = tmp_path / page.stem
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        saved = [(match[1], block.text) for block in blocks(page) if (match := FILE.match(block.text))]
        for name, text in saved:
            Path(name).write_text(text, encoding="utf-8")
        loaded += [load_study(name, []).name for name, text in saved if "\nseeds = " in text]
    assert len(loaded) > 4


def carry_out(block: Block, folder: Path) -> None:
    """Save a block that names its file, run one of Python or shell."""
    if named := FILE.match(block.text):
        (folder / named[1]).write_text(block.text, encoding="utf-8")
        return
    if block.language == "text":  # what is printed
        return
    commands = {"python": [sys.executable, "-c", block.text], "sh": ["bash", "-euo", "pipefail", "-c", block.text]}
    assert block.language in commands, f"a block of {block.language!r} that names no file: nobody can follow it"
    run(commands[block.language], folder)


@pytest.mark.exhaustive
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorial_can_be_followed_from_an_empty_folder(page, tmp_path):
    """Every block, in order, but those that are marked as long."""
    for block in blocks(page):
        if block.manner != "long":
            carry_out(block, tmp_path)


@pytest.mark.exhaustive
def test_study_from_python_works_as_its_page_says(tmp_path):
    """The block of docs/python.md, in an empty folder."""
    for block in blocks(ROOT / "docs" / "python.md"):
        carry_out(block, tmp_path)


TRAINING = """
from transformers import TrainingArguments

rows = [{"input_ids": [5, 6, 7, 8, 9], "labels": [-100, -100, -100, 8, 9]}] * 4
arguments = TrainingArguments("out", max_steps=2, per_device_train_batch_size=2, use_cpu=True, report_to="none")
trainer = LoggingTrainer(model, arguments, train_dataset=rows)
trainer.train()
logged = [entry for entry in trainer.state.log_history for layer in layers if f"alignment/{layer}" in entry]
assert len(logged) == 2 * len(layers), trainer.state.log_history
assert all(abs(value) <= 1 for entry in logged for key, value in entry.items() if key.startswith("alignment"))
"""


def test_readme_logs_gradients_in_a_trainer_of_ones_own(tmp_path):
    """The README's Python, on a tiny model in place of the hub's, then two steps of its Trainer."""
    (block,) = (block for block in blocks(README) if block.language == "python")
    assert MODEL_OF_README in block.text
    code = block.text.replace(MODEL_OF_README, str(locate("obedient")[0]))
    run([sys.executable, "-W", "ignore", "-c", code + TRAINING], tmp_path)


IMPORTS = sorted({
    (match[1], name)
    for page in PAGES
    for match in re.finditer(r"^from (gradinoc[\w.]*) import ([\w, ]+)$", page.read_text(encoding="utf-8"), re.M)
    for name in match[2].split(", ")
})  # fmt: skip


def examples_of_docstrings() -> dict[str, str]:
    """The indented code in the docstrings of public names."""
    found = {}
    for name in gradinoc.__all__:
        text = inspect.getdoc(getattr(gradinoc, name)) or ""
        before = re.split(r"^(?:Args|Attributes|Raises|Returns):$", text, flags=re.M)[0]
        if lines := [line for line in before.splitlines() if line.startswith("    ")]:
            found[name] = textwrap.dedent("\n".join(lines))
    return found


def test_examples_in_docstrings_run(tmp_path):
    """Those of public names, as they stand, with the package imported."""
    examples = examples_of_docstrings()
    assert "steered" in examples
    for code in examples.values():
        run([sys.executable, "-c", f"import gradinoc\n{code}"], tmp_path)


@pytest.mark.parametrize(("module", "name"), IMPORTS)
def test_import_of_a_page_is_there(module, name):
    """Whatever a page imports of gradinoc."""
    assert hasattr(import_module(module), name)


def test_readme_is_short():
    """It is read once, by a busy researcher."""
    assert len(README.read_bytes()) <= 12 * 1024


def test_readme_layout_is_what_ls_shows():
    """Every entry of the folders that it lists, and no other."""
    (layout,) = (block.text for block in blocks(README) if block.text.startswith("gradinoc/\n"))
    listed = {"": set(), "  ": set()}
    for line in layout.splitlines():
        indent, names = re.match(r"( *)((?:\S+ ?)+)", line).groups()
        listed[indent] |= {name.rstrip("/") for name in names.split()}
    for folder, indent in ((ROOT, ""), (ROOT / "gradinoc", "  ")):
        tracked = subprocess.run(["git", "ls-files"], cwd=folder, capture_output=True, text=True, check=False).stdout
        there = {line.partition("/")[0] for line in tracked.splitlines()}
        assert listed[indent] == {name for name in there if not name.startswith((".", "__")) and name != "README.md"}


def lines_of(start: str) -> list[str]:
    """Each command of a page's shell blocks that begins so; a command is one line, comments are left out."""
    lines = (
        line.partition(" #")[0].strip()
        for page in PAGES
        for block in blocks(page)
        if block.language == "sh" and not FILE.match(block.text)
        for line in block.text.splitlines()
    )
    return sorted({line for line in lines if line.startswith(f"{start} ")})


@pytest.mark.parametrize("line", lines_of("make"))
def test_make_command_is_there(line):
    """Make knows what to do, without doing it."""
    run(["make", "-n", *shlex.split(line)[1:]], ROOT)


@pytest.mark.parametrize("line", [line for line in lines_of("pytest") if "my-study.toml" not in line])
def test_study_of_a_pytest_command_can_be_read(line):
    """Its name and its changed keys are known."""
    words = shlex.split(line)
    studies, changes = ([words[n + 1] for n, word in enumerate(words) if word == name] for name in ("--study", "--set"))
    for name in studies:
        assert load_study(name, changes).name.startswith(name)


def test_pytest_options_are_known():
    """Each that the pages use is in pytest's help."""
    text = run([sys.executable, "-m", "pytest", "claims", "--help", "-p", "no:cacheprovider"], ROOT, COLUMNS="200")
    table = re.findall(r"^\| `(--[\w-]+)", (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), re.M)
    used = {word.partition("=")[0] for line in lines_of("pytest") for word in shlex.split(line) if word[:2] == "--"}
    assert {option for option in used.union(table) if option not in text} == set()


GROUPS = ("store", "export")  # commands of `gradinoc` that have commands of their own


def commands() -> dict[str, set[str]]:
    """`gradinoc` commands of the pages, "" for none, each with the options that are used."""
    found: dict[str, set[str]] = {}
    for line in lines_of("gradinoc"):
        words = shlex.split(line)[1:]
        command = "" if words[0].startswith("-") else " ".join(words[: 2 if words[0] in GROUPS else 1])
        found.setdefault(command, set()).update(word.partition("=")[0] for word in words if word.startswith("--"))
    return found


@pytest.mark.parametrize(("command", "options"), commands().items())
def test_gradinoc_command_is_known(command, options):
    """The command and each of its options are in its own help."""
    text = run([sys.executable, "-m", "gradinoc", *command.split(), "--help"], ROOT, COLUMNS="200")
    assert {option for option in options if option not in text} == set()


@pytest.mark.exhaustive
def test_reference_has_a_page_for_every_module_and_shows_public_names(tmp_path):
    """`make docs` writes it from the docstrings; public names, looked up when asked for, are on the package's page."""
    run([sys.executable, ROOT / "docs" / "make_reference.py", tmp_path], ROOT)
    pages = {str(page.relative_to(tmp_path)).removesuffix(".html") for page in tmp_path.rglob("*.html")}
    files = [path for path in (ROOT / "gradinoc").rglob("*.py") if path.name != "__main__.py"]
    modules = {str(path.relative_to(ROOT).with_suffix("")).removesuffix("/__init__") for path in files}
    assert pages == modules | {"index"}
    page = (tmp_path / "gradinoc.html").read_text(encoding="utf-8")
    assert all(f'id="{name}"' in page for name in gradinoc.__all__)


def slug(heading: str) -> str:
    """A heading's name in a link, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lstrip("# ")).strip().lower().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_of_a_page_lead_somewhere(page):
    """Linked files and their headings are there, and so are files of the project that are named in code type."""
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|srcset|href)=\"([^\"]+)\"", text)
    for target in (target for target in targets if not target.startswith(("http:", "https:"))):
        file, _, heading = target.partition("#")
        goal = page.parent / file if file else page
        assert goal.exists(), f"{target}: no such file"
        if heading:
            headings = {slug(line) for line in goal.read_text(encoding="utf-8").splitlines() if line.startswith("#")}
            assert heading in headings, f"{target}: no such heading"
    for path in re.findall(r"`((?:gradinoc|claims|tests|docs|fixtures|benchmarks|findings)/\w[\w./-]*)`", text):
        assert (ROOT / path).exists(), f"{path}: no such file"
