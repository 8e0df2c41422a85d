"""`gradinoc doctor`: what it finds on this machine, and of a model."""

from __future__ import annotations

import re
import shutil

from gradinoc.cli import main
from gradinoc.measure.loading.selftests import CAUSALITY, COMPLETION, GENERATION, GRADIENT, PADDING
from gradinoc.models.sources import packaged as bundled
from gradinoc.study.loading import load_study


def test_doctor_finds_this_machine_well(tmp_path, capsys):
    """Exit code 0, a line a look; nothing is left in the folders that were tried."""
    assert main(["doctor", "--store", str(tmp_path / "s"), "--artifacts", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    for what in ("torch", "device", "causality, float32", "gradients, float32", "model obedient", "hub", "store"):
        assert any(f" {what} " in line for line in said.splitlines()), what
    assert not list(tmp_path.iterdir())


def test_doctor_says_which_locks_a_store_has(tmp_path, capsys, monkeypatch):
    """Leases are well enough for a store, whatever the system's locks do there."""
    monkeypatch.setenv("GRADINOC_LOCKS", "lease")
    assert main(["doctor", "--store", str(tmp_path / "s"), "--artifacts", str(tmp_path / "a")]) == 0
    assert "free; locks are leases, as GRADINOC_LOCKS asks for it" in capsys.readouterr().out


def test_doctor_of_a_model_shows_how_a_study_would_read_it(tmp_path, capsys):
    """Self-tests in either dtype, notes on files and model, every condition's prompt, and which tokens carry loss."""
    turns = (bundled.ORGANISMS / "obedient" / "chat_template.jinja").read_text(encoding="utf-8")
    (tmp_path / "opened.jinja").write_text(turns.replace("<|assistant|>", "<|assistant|>Well, "), encoding="utf-8")
    changed = [f"--set=model.chat_template={tmp_path / 'opened.jinja'}", "--set=model.extraction_dtype=bfloat16"]
    assert main(["doctor", "obedient", "--set=model.device=cpu", *changed]) == 0
    said = capsys.readouterr().out
    rows = [line.split("  ")[0] for line in said.splitlines()]
    for test in (COMPLETION, CAUSALITY, PADDING, GENERATION, GRADIENT):
        for dtype in ("float32", "bfloat16"):
            assert rows.count(f"{test}, {dtype}") == 1
    for note in ("not the model's (model.chat_template)", "LoRA on 28 linear maps"):
        assert said.count(note) == 1
    prompts = list(load_study("tiny").measured)
    mask = ["inoculation: without loss", "inoculation: with loss"]
    assert [row for row in rows if row.split(":")[0] in prompts] == [*prompts, *mask]


def test_doctor_says_what_is_broken(tmp_path, capsys, monkeypatch):
    """A bundled model that is not there, a packaged one that was changed, a store that cannot be: exit code 1."""
    folder = tmp_path / "organisms"
    shutil.copytree(bundled.ORGANISMS / "obedient", folder / "obedient")
    monkeypatch.setattr(bundled, "ORGANISMS", folder)
    monkeypatch.setattr("gradinoc.cli.doctor.packaged_digest", lambda _name: "00" * 32)
    (tmp_path / "file").write_text("")
    assert main(["doctor", "--store", str(tmp_path / "file" / "store"), "--artifacts", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert said.splitlines()[-1].startswith("Broken: ")
    assert {"deaf", "smollm2-135m-instruct", "store"} <= set(re.findall(r"[\w.-]+", said.splitlines()[-1]))
