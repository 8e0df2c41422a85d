"""`gradinoc store` and `gradinoc steps`: results that were computed elsewhere, and a study computed in shares."""

from __future__ import annotations

import re
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from gradinoc.api import check_study, open_study
from gradinoc.cli.output import MISSING, print_notes, print_table, size
from gradinoc.cli.run import libraries_apart
from gradinoc.disk import disk_errors, write_atomically
from gradinoc.errors import StoreError, StudyError, printable
from gradinoc.pipeline.display import show_progress
from gradinoc.study.loading import load_study

if TYPE_CHECKING:
    from gradinoc.cli import Session
    from gradinoc.pipeline.storage.store import Store

SHOWN = 16  # characters of a key
SHARE = re.compile(r"(\d+)/(\d+)")


def list_results(root: Path) -> None:
    """Print a line for each result: its stage, the beginning of its key, what it is of, its size, when it was made."""
    from gradinoc.pipeline.storage.transfer import entry_of

    store, rows = _store(root), []
    for folder in store.stored():
        try:
            manifest = entry_of(store, folder).manifest()
            step, weight = manifest["inputs"].get("step", {}), sum(each["size"] for each in manifest["files"].values())
            of = " ".join(
                str(step[part]) for part in ("condition", "seed", "phase") if step.get(part) not in ("", None)
            )
            rows.append(
                [folder.parent.name, folder.name[:SHOWN], of, size(weight, "B"), manifest["provenance"]["created"]]
            )
        except StoreError:
            rows.append([folder.parent.name, folder.name[:SHOWN], "damaged", MISSING, MISSING])
    print_table(["stage", "key", "of", "size", "computed (UTC)"], rows, right=(3,))


def verify_results(root: Path) -> None:
    """Take every checksum, and name the results that are not whole.

    Raises:
        StoreError: there are some.
    """
    from gradinoc.pipeline.storage.transfer import faults

    found = [*faults(_store(root))]
    damaged = [(folder, fault) for folder, fault in found if fault]
    for folder, fault in damaged:
        sys.stdout.write(f"{folder.parent.name}/{folder.name}: {printable(fault)}\n")
    sys.stdout.write(f"{len(found) - len(damaged)} of {len(found)} results in {printable(root)} are whole\n")
    if damaged:
        raise StoreError(f"{len(damaged)} damaged; run the study again: they are computed again, all else is kept")


def export_results(root: Path, keys: Sequence[str], out: Path) -> None:
    """Write results, each as one file that `merge` takes, into a folder; their keys may be given by the beginning."""
    from gradinoc.pipeline.storage.transfer import PACKED, found_in, pack

    for begun in keys:
        entry = found_in(_store(root), begun)
        path = write_atomically(out / f"{entry.stage}-{entry.key}{PACKED}", pack(entry), "out")
        sys.stdout.write(f"{printable(path)}\n")


def merge_stores(root: Path, others: Sequence[Path]) -> None:
    """Take the results of other stores, or of exported files; name what was not taken.

    Raises:
        StoreError: the same key has other bytes somewhere, or a result is damaged.
    """
    from gradinoc.pipeline.storage.store import Store
    from gradinoc.pipeline.storage.transfer import Became, merge

    store, counted, refused = Store(root), Counter[Became](), 0
    for other in others:
        with disk_errors(root):
            for arrival in merge(store, other):
                counted[arrival.became] += 1
                if arrival.became in (Became.DIFFERENT, Became.DAMAGED):
                    refused += 1
                    which = f"{arrival.stage}/{arrival.key} of {printable(other)}"
                    sys.stdout.write(f"{which}: {arrival.became}: {printable(arrival.what)}\n")
    told = ", ".join(f"{counted[each]} {each}" for each in Became if counted[each])
    sys.stdout.write(f"{printable(root)}: {told or 'nothing there to be taken'}\n")
    if refused:
        raise StoreError(f"{refused} not taken; of the same key with other bytes the store's own is kept")


def compute_share(
    session: Session, name: str, settings: Sequence[str], store: Path, artifacts: Path, share: str
) -> None:
    """Compute one share of a study into a store, with progress, and print what to do when all are computed.

    Raises:
        StudyError: `share` is no "NUMBER/COUNT".
    """
    given = SHARE.fullmatch(share)
    number, count = (int(each) for each in given.groups()) if given else (0, 0)
    if not 1 <= number <= count:
        raise StudyError(f"--shard {share!r}: expected NUMBER/COUNT, such as 3/16 for the third of sixteen")
    session.store = store
    study = load_study(name, list(settings))
    with libraries_apart(), show_progress() as show:
        from gradinoc.pipeline.engines.shards import left_over, shard
        from gradinoc.pipeline.storage.locks import notes

        print_notes([*check_study(study), *notes(store)])
        with closing(open_study(study, store, artifacts, session.noting(show), "none")) as pipeline:
            keys = shard(pipeline.steps, number, count)
            pipeline.complete(keys)
    later = len(left_over(pipeline.steps, count))
    changes = [word for setting in settings for word in ("--set", setting)]
    sys.stdout.write(
        f"Share {number} of {count}: {len(keys)} of the {len(pipeline.steps)} steps of study {study.name} are in "
        f"{printable(store)}. When all shares are computed: gradinoc store merge STORE ..., and "
        f"{printable(shlex.join(['gradinoc', 'run', name, *changes]))} computes the {later} steps that need several.\n"
    )


def _store(root: Path) -> Store:
    from gradinoc.pipeline.storage.store import Store

    if not root.is_dir():
        raise StoreError(f"{root}: no such store; expected a folder of results")
    return Store(root)
