"""`gradinoc store` and `gradinoc steps`: what a store holds, and how results get from one into another."""

from __future__ import annotations

import shlex

import pytest

from fixtures.smallest import SMALLEST
from gradinoc.cli import main
from gradinoc.pipeline.storage.contents import save_json
from gradinoc.pipeline.storage.store import Store, load_or_compute


def filled(root, *numbers, text="content"):
    """Entries of a store, each with one file."""
    entries = [
        Store(root).entry("training", {"step": {"condition": "neutral", "seed": n, "phase": ""}}) for n in numbers
    ]
    for entry in entries:
        load_or_compute(entry, lambda folder: save_json(text, folder / "file.json"))
    return entries


def said(capsys, *words):
    """Exit code, what is on stdout, what is on stderr."""
    code = main([str(word) for word in words])
    return code, *capsys.readouterr()


def test_a_store_is_listed(tmp_path, capsys):
    """A line a result, of what it is; one that is damaged says so."""
    first, second = filled(tmp_path, 0, 1)
    (second.path / "manifest.json").write_text("{")
    code, out, _ = said(capsys, "store", "list", "--store", tmp_path)
    lines = out.splitlines()
    assert (code, len(lines)) == (0, 3)
    assert any(first.key[:16] in line and "neutral 0" in line for line in lines)
    assert any(second.key[:16] in line and "damaged" in line for line in lines)


def test_what_is_not_whole_is_named(tmp_path, capsys):
    """With exit code 2; of a store that is whole with 0."""
    first, _ = filled(tmp_path, 0, 1)
    assert said(capsys, "store", "verify", "--store", tmp_path)[:2] == (0, f"2 of 2 results in {tmp_path} are whole\n")
    (first.path / "file.json").write_text('"contenu"\n')
    code, out, err = said(capsys, "store", "verify", "--store", tmp_path)
    assert code == 2
    assert out.splitlines() == [
        f"training/{first.key}: 'file.json': checksum does not match", f"1 of 2 results in {tmp_path} are whole",
    ]  # fmt: skip
    assert "computed again" in err


def test_exported_results_are_merged(tmp_path, capsys):
    """Keys may be given by their beginnings; what is there already is counted, and nothing else happens to it."""
    (entry,) = filled(tmp_path / "a", 0)
    code, out, _ = said(capsys, "store", "export", entry.key[:8], "--store", tmp_path / "a", "--out", tmp_path / "out")
    file = tmp_path / "out" / f"training-{entry.key}.tar"
    assert (code, out) == (0, f"{file}\n")
    filled(tmp_path / "c", 1)
    for expected in ("2 taken", "2 there already"):
        code, out, _ = said(capsys, "store", "merge", file, tmp_path / "c", "--store", tmp_path / "b")
        assert (code, out) == (0, f"{tmp_path / 'b'}: {expected}\n")


def test_other_bytes_under_one_key_are_named(tmp_path, capsys):
    """With exit code 2; the store's own stay."""
    (entry,) = filled(tmp_path / "a", 0)
    filled(tmp_path / "b", 0, text="other")
    code, out, err = said(capsys, "store", "merge", tmp_path / "b", "--store", tmp_path / "a")
    assert code == 2
    assert out.splitlines()[0] == f"training/{entry.key} of {tmp_path / 'b'}: other bytes: 'file.json'"
    assert "1 not taken" in err
    assert "content" in (entry.path / "file.json").read_text()


@pytest.mark.parametrize(
    "words", [["store", "list"], ["store", "verify"], ["store", "export", "a"], ["store", "merge", "{}/other"]]
)
def test_a_store_that_is_not_there_is_told(tmp_path, capsys, words):
    """In one line."""
    code, _, err = said(capsys, *(word.format(tmp_path) for word in words), "--store", tmp_path / "none")
    assert code == 2
    assert "no such store" in err


@pytest.mark.parametrize("share", ["3", "0/2", "3/2", "a/b", "1/2/3", "-1/2"])
def test_shares_that_are_none_are_refused(tmp_path, capsys, share):
    """With an example of one."""
    words = ["steps", "tiny", f"--shard={share}", "--store", tmp_path / "s", "--artifacts", tmp_path / "a"]
    code, _, err = said(capsys, *words)
    assert code == 2
    assert "such as 3/16" in err


@pytest.mark.exhaustive
def test_a_share_is_computed_and_what_remains_is_told(tmp_path, capsys, monkeypatch):
    """Into a store of its own; what its locks are is said where it is not the system's."""
    monkeypatch.setenv("GRADINOC_LOCKS", "lease")
    settings = [word for setting in SMALLEST for word in ("--set", setting)]
    words = ["steps", "tiny", "--shard", "2/3", *settings, "--store", tmp_path / "s", "--artifacts", tmp_path / "a"]
    code, out, err = said(capsys, *words)
    assert code == 0
    assert "locks are leases" in err
    assert out.startswith("Share 2 of 3: ")
    assert f"{shlex.join(['gradinoc', 'run', 'tiny', *settings])} computes the " in out
    assert len([*Store(tmp_path / "s").stored()]) == int(out.split()[4])
