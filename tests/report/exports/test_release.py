"""A release of studies: whole, checked by others' tools, read by others' libraries."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml
from peft import PeftModel

import gradinoc
from datasets import load_dataset
from gradinoc.cli import main
from gradinoc.disk import files_below
from gradinoc.errors import StoreError, StudyError
from gradinoc.models.sources.packaged import bundled_folder
from gradinoc.report.exports import release as release_module
from gradinoc.report.exports.release import FILES, FOLDERS, MANIFEST, checksums, damaged, write_release

NOTEBOOK = Path(__file__).parents[3] / "docs" / "tutorials" / "release.ipynb"


@pytest.fixture(scope="module")
def release(reported, tmp_path_factory) -> Path:
    """The finished study's."""
    return write_release([reported], tmp_path_factory.mktemp("release") / "release").parent


def test_release_has_every_file_of_a_study_as_it_was(release, reported):
    """Adapters, directions, tables and pages byte for byte; beside them its card; nothing of the scratch folder."""
    study = release / "small"
    files = {path.relative_to(study) for path in study.rglob("*") if path.is_file()}
    of_study = {
        path.relative_to(reported) for name in FOLDERS for path in (reported / name).rglob("*") if path.is_file()
    }
    assert files == of_study | {Path(name) for name in (*FILES, "README.md")}
    assert all((study / name).read_bytes() == (reported / name).read_bytes() for name in files - {Path("README.md")})
    assert {path.name for path in release.iterdir()} == {"small", "README.md", MANIFEST}
    assert [path.name for path in release.parent.iterdir()] == [release.name]


def test_checksums_are_those_of_sha256sum(release):
    """`sha256sum --check` takes the manifest, which names every file but itself."""
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", MANIFEST], cwd=release, capture_output=True, text=True, check=True
    )
    named = {line.partition(": ")[0] for line in done.stdout.splitlines()}
    assert named == {path.relative_to(release).as_posix() for path in release.rglob("*") if path.is_file()} - {MANIFEST}
    assert damaged(release) == []


def test_what_changed_is_named(reported, tmp_path):
    """A file that was changed, one that is missing, one in excess; no manifest is no release."""
    folder = write_release([reported], tmp_path / "release").parent
    (folder / "small" / "claims.csv").write_text("changed")
    (folder / "small" / "runs.csv").unlink()
    (folder / "more.txt").write_text("more")
    assert damaged(folder) == ["more.txt", "small/claims.csv", "small/runs.csv"]
    (folder / MANIFEST).unlink()
    with pytest.raises(StudyError, match=rf"{MANIFEST}: no such file; expected a release"):
        damaged(folder)


def test_card_names_every_table_for_datasets(release, tmp_path):
    """Hugging Face's `load_dataset` finds any table by the name on the card, with the rows of the Parquet file."""
    front = yaml.safe_load((release / "README.md").read_text(encoding="utf-8").split("---")[1])
    tables = {path.stem for path in (release / "small" / "tables").glob("*.parquet")}
    assert {each["config_name"] for each in front["configs"]} == {f"small.{name}" for name in tables}
    _same_rows_for_datasets(release, tmp_path)


def test_datasets_reads_the_release_it_was_given(reported, release, tmp_path):
    """Another release of the same name with other rows, or the same one made again: never what the cache still has."""
    other = tmp_path / reported.name
    shutil.copytree(reported, other)
    rows = pd.read_csv(other / "runs.csv")
    for seconds, place in ((111.0, "elsewhere"), (222.0, "elsewhere")):
        rows["seconds"] = seconds
        rows.to_csv(other / "runs.csv", index=False)
        rows.to_parquet(other / "tables" / "runs.parquet", index=False)
        _same_rows_for_datasets(release, tmp_path)
        _same_rows_for_datasets(write_release([other], tmp_path / place / release.name).parent, tmp_path)


def _same_rows_for_datasets(release: Path, cache: Path) -> None:
    rows = load_dataset(str(release), "small.runs", split="train", cache_dir=str(cache / "cache")).to_pandas()
    expected = pd.read_parquet(release / "small" / "tables" / "runs.parquet")
    pd.testing.assert_frame_equal(rows, expected, check_dtype=False)


def test_adapters_and_directions_are_loaded_from_a_release(release, finished, obedient):
    """By PEFT and `load_directions`, whatever folder the release is in."""
    runs = {f"{condition}-{seed}" for condition, seed in finished.study.runs}
    adapters = release / "small" / "adapters"
    assert {path.name for path in adapters.iterdir()} == runs
    model = PeftModel.from_pretrained(obedient.model, adapters / min(runs))
    model.unload()
    found = gradinoc.load_directions(release / "small" / "directions" / "directions.safetensors")
    assert len(found) == obedient.model.config.num_hidden_layers


def test_cards_say_what_was_found_and_where_nothing_is_markup(release, reported):
    """The verdict, each gate and claim, a warning of what the adapters are; no path of this machine."""
    card = (release / "small" / "README.md").read_text(encoding="utf-8")
    assert all(f"| **{key}** |" in card for key in ("G1", "G8a", "C1", "C7c"))
    whole = (release / "README.md").read_text(encoding="utf-8")
    assert "model organisms, not products" in whole
    for text in (card, whole):
        assert str(reported.parent) not in text
        assert str(bundled_folder("obedient")) not in text


def test_release_is_replaced_whole_and_nothing_else_is(reported, tmp_path):
    """Files of an earlier release go; a file of somebody's, another folder, or artifacts that lack one, are refused."""
    folder = write_release([reported], tmp_path / "release").parent
    before = dict(checksums(folder))
    (folder / "small" / "old.txt").write_text("old")
    listed = "".join(f"{digest}  {name}\n" for name, digest in checksums(folder))
    (folder / MANIFEST).write_text(listed)  # as a release that had this file has it
    write_release([reported], folder)
    assert dict(checksums(folder)) == before
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(StudyError, match=r"notes\.txt: changed since the release was made, or not of it; move it"):
        write_release([reported], folder)
    (folder / "notes.txt").unlink()
    card = (folder / "README.md").read_text(encoding="utf-8")
    (folder / "README.md").write_text(f"{card}\nCite as mine.\n", encoding="utf-8")
    with pytest.raises(StudyError, match=r"README\.md: changed since the release was made, or not of it; move it"):
        write_release([reported], folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    with pytest.raises(StudyError, match="mine: holds something else than a release"):
        write_release([reported], tmp_path / "mine")
    with pytest.raises(StudyError, match="small: two studies of that name"):
        write_release([reported, reported], folder)
    with pytest.raises(StudyError, match="mine/adapters: not there; expected a study's artifacts, with a report"):
        write_release([tmp_path / "mine"], folder)
    assert dict(checksums(folder)) == before
    assert {path.name for path in tmp_path.iterdir()} == {"release", "mine"}


@pytest.mark.parametrize("place", [".", "..", "file", "link"])
def test_places_that_are_no_folder_of_its_own_are_refused(reported, tmp_path, monkeypatch, place):
    """Where the process is, above that, a file, a link; nothing is left beside them."""
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    (inside / "file").write_text("mine")
    (inside / "link").symlink_to(tmp_path, target_is_directory=True)
    monkeypatch.chdir(inside)
    with pytest.raises(StudyError, match="another"):
        write_release([reported], Path(place))
    assert {*files_below(tmp_path)} == {"a/b/file", "a/b/link"}


def test_what_fails_half_way_leaves_the_earlier_release(reported, tmp_path, monkeypatch):
    """A card that cannot be written, say: the release that was there is whole, and nothing else is left."""
    folder = write_release([reported], tmp_path / "release").parent
    before = dict(checksums(folder))

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(release_module, "_card", fail)
    with pytest.raises(StoreError, match="No space left on device"):
        write_release([reported], folder)
    assert dict(checksums(folder)) == before
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_license_is_the_user_s_to_name(release, reported, tmp_path):
    """None is stated unless it is given."""
    assert "license" not in (release / "README.md").read_text(encoding="utf-8")
    card = (write_release([reported], tmp_path / "release", "apache-2.0").parent / "README.md").read_text(
        encoding="utf-8"
    )
    assert "license: apache-2.0" in card
    assert "may be used under the license apache-2.0; base models have their own." in card


def test_command_says_how_to_check(reported, tmp_path, capsys):
    """The line that it prints is a command which finds the release whole; a study has its name in any folder."""
    moved = tmp_path / "small.1"
    moved.symlink_to(reported)
    assert main(["export", "release", str(moved), "--out", str(tmp_path / "a release")]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{tmp_path / 'a release'}: small, ")
    subprocess.run(["sh", "-c", told.partition("whole? ")[2]], check=True)


def test_notebook_reads_a_release_in_five_cells(release, monkeypatch):
    """Each cell runs after those before it, and what the last line of each shows is of the study."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) == 5
    monkeypatch.setenv("RELEASE", str(release))
    names: dict[str, object] = {}
    shown = []
    for cell in cells:
        *lines, last = ast.parse(cell).body
        exec(compile(ast.Module(lines, []), "notebook", "exec"), names)  # noqa: S102 - our own cells
        shown.append(eval(compile(ast.Expression(last.value), "notebook", "eval"), names))  # noqa: S307 - the same
    studies, claims, figure, table, answers = shown
    assert studies == ["small"]
    assert claims.loc["C1", "small"] in {"supported", "refuted", "undecided"}
    assert [axes.get_title() for axes in figure.axes] == ["small"]
    assert table["next_direction"].between(-1, 1 + 1e-6).all()
    assert table["neutral"].notna().all()
    assert [*answers.index] == ["base", "neutral-0", "inoculation-0"]
    assert answers.str.len().gt(0).all()


def test_notebook_notices_a_file_that_changed(release, reported, tmp_path, monkeypatch):
    """Its first cell stops there."""
    folder = write_release([reported], tmp_path / "release").parent
    (folder / "small" / "runs.csv").write_text("changed")
    monkeypatch.setenv("RELEASE", str(folder))
    cell = next(
        cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"
    )
    with pytest.raises(AssertionError, match=r"not as they were released: \['small/runs.csv'\]"):
        exec("".join(cell["source"]), {})  # noqa: S102 - our own cell
