"""Results that travel between stores arrive whole, once, and as they were; what differs is told and not taken."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest

from gradinoc.errors import StoreError
from gradinoc.pipeline.storage.contents import MANIFEST, save_json, save_table
from gradinoc.pipeline.storage.store import Store, load_or_compute
from gradinoc.pipeline.storage.transfer import Became, found_in, merge, pack, receive, take


def computed(root, number=0, values=(1.0, float("nan")), seconds=3.0):
    """An entry of a store, with a table, a file in a folder of its own, and a hidden one that is nobody's."""

    def compute(folder):
        save_table(pd.DataFrame({"value": values, "seconds": seconds}), folder / "runs.parquet")
        (folder / "adapter").mkdir()
        save_json({"number": number}, folder / "adapter" / "config.json")

    entry = Store(root).entry("training", {"number": number})
    load_or_compute(entry, compute)
    return entry


def became(arrivals):
    """What became of each."""
    return [each.became for each in arrivals]


def test_two_halves_make_the_whole(tmp_path):
    """Every file of every result is there, byte for byte, manifests included; a second time nothing happens."""
    halves = [
        [computed(tmp_path / side, number) for number in numbers] for side, numbers in (("a", (0, 1)), ("b", (1, 2)))
    ]
    store = Store(tmp_path / "a")
    assert sorted(became(merge(store, tmp_path / "b"))) == [Became.TAKEN, Became.KNOWN]
    assert became(merge(store, tmp_path / "b")) == [Became.KNOWN] * 2
    there = {path.name: path for path in store.stored()}
    assert set(there) == {entry.key for half in halves for entry in half}
    for entry in halves[1][1:]:
        files = {path.relative_to(entry.path): path.read_bytes() for path in entry.path.rglob("*") if path.is_file()}
        for name, content in files.items():
            assert (there[entry.key] / name).read_bytes() == content
        assert Store(tmp_path / "a").entry("training", {"number": 2}).complete()


def test_a_packed_result_is_the_result(tmp_path):
    """One file, the same bytes each time; hidden files that desktops leave do not travel."""
    entry = computed(tmp_path / "a")
    (entry.path / ".DS_Store").write_text("left")
    packed = pack(entry)
    assert pack(entry) == packed
    store = Store(tmp_path / "b")
    assert receive(store, packed).became is Became.TAKEN
    taken = store.entry("training", {"number": 0})
    assert taken.complete()
    assert not (taken.path / ".DS_Store").exists()
    assert receive(store, packed).became is Became.KNOWN


def test_other_bytes_under_one_key_are_told_and_not_taken(tmp_path):
    """Which file differs is said; how long a thing took is no difference."""
    here = computed(tmp_path / "a")
    before = (here.path / "runs.parquet").read_bytes()
    computed(tmp_path / "same", seconds=4.0)
    assert became(merge(Store(tmp_path / "a"), tmp_path / "same")) == [Became.KNOWN]
    computed(tmp_path / "other", values=(1.0, 2.0))
    (arrival,) = merge(Store(tmp_path / "a"), tmp_path / "other")
    assert (arrival.became, arrival.what) == (Became.DIFFERENT, "'runs.parquet'")
    assert (here.path / "runs.parquet").read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "changed", "manifest", "other key"])
def test_damage_is_found_before_anything_is_taken(tmp_path, damage):
    """Of a result in a folder; nothing is left behind of it."""
    entry = computed(tmp_path / "a")
    table, manifest = entry.path / "runs.parquet", entry.path / MANIFEST
    if damage == "cut":
        table.write_bytes(table.read_bytes()[:-1])
    elif damage == "changed":
        table.write_bytes(table.read_bytes()[:-1] + b"?")
    elif damage == "manifest":
        manifest.write_text("{")
    else:
        said = json.loads(manifest.read_text())
        said["files"]["more.parquet"] = {"size": 1, "sha256": ""}
        save_json(said, manifest)
    (arrival,) = merge(Store(tmp_path / "b"), tmp_path / "a")
    assert arrival.became is Became.DAMAGED
    assert arrival.what
    assert not list((tmp_path / "b").rglob("*.parquet"))


@pytest.mark.parametrize("cut", [0, 100, 2000])
def test_a_packed_result_that_is_cut_short_is_damaged(tmp_path, cut):
    """Wherever it ends; one that is there already stays."""
    packed = pack(computed(tmp_path / "a"))
    assert receive(Store(tmp_path / "b"), packed[:cut]).became is Became.DAMAGED
    assert [*Store(tmp_path / "b").stored()] == []


def test_a_damaged_result_is_replaced_by_a_whole_one(tmp_path):
    """A store mends another."""
    here, there = computed(tmp_path / "a"), computed(tmp_path / "b")
    shutil.rmtree(here.path / "adapter")
    assert not Store(tmp_path / "a").entry("training", {"number": 0}).complete()
    assert take(Store(tmp_path / "a"), there.path).became is Became.TAKEN
    assert Store(tmp_path / "a").entry("training", {"number": 0}).complete()


def test_results_are_found_by_the_beginning_of_their_key(tmp_path):
    """One that fits is returned; none, or several, is an error that says so."""
    entries = [computed(tmp_path, number) for number in range(3)]
    store = Store(tmp_path)
    assert found_in(store, entries[1].key[:16]).path == entries[1].path
    with pytest.raises(StoreError, match="0 results have keys"):
        found_in(store, "zz")
    with pytest.raises(StoreError, match="3 results have keys"):
        found_in(store, "")


def test_what_is_no_store_is_refused(tmp_path):
    """A name without anything there."""
    with pytest.raises(StoreError, match="no such store"):
        list(merge(Store(tmp_path), tmp_path / "nothing"))
