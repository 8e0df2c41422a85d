"""`gradinoc doctor`: check this machine, or a model, for a study."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch
from huggingface_hub import constants, get_session

from gradinoc.cli import BROKEN
from gradinoc.cli.output import print_table, size
from gradinoc.cli.plan import PROMPTS
from gradinoc.data.splits import split
from gradinoc.disk import cache_folder
from gradinoc.errors import GradinocError, printable, reason
from gradinoc.measure.loading.load import LanguageModel, load_model
from gradinoc.models.machine.device import bfloat16_pays, choose_device, choose_dtype, product_speeds
from gradinoc.models.sources.packaged import PACKAGED, TINY, packaged_digest, packaged_files
from gradinoc.pipeline.check import check
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.storage.locks import excludes, probed
from gradinoc.pipeline.storage.provenance import hardware, library_versions
from gradinoc.study.loading import load_study

LIBRARIES = ("gradinoc", "torch", "transformers", "tokenizers", "peft", "accelerate", "numpy", "pandas", "pytest")
HUB_SECONDS = 3.0
SIZES = 576, 1536  # of SmolLM2's costliest product
SPACE = 2_000_000_000  # bytes: a study of SmolLM2 with its converted copy takes half of it


class State(StrEnum):
    """The outcome of a check: a study runs with `NOTE`, and not with `BROKEN`."""

    WELL, NOTE, BROKEN = "ok", "note", "BROKEN"


@dataclass(frozen=True)
class Found:
    """One check and its outcome."""

    what: str
    state: State
    detail: str


def examine(store: Path, artifacts: Path) -> int:
    """Print every check and its outcome; return 1 if something is broken that every study needs."""
    found = [*_versions(), *_device(), *_self_tests(), *_models(), *_hub(), *_places(store, artifacts)]
    print_table(("", "", ""), [[each.state, each.what, each.detail] for each in found])
    broken = [each.what for each in found if each.state is State.BROKEN]
    sys.stdout.write(f"\nBroken: {', '.join(broken)}\n" if broken else "\nNothing is broken.\n")
    return BROKEN if broken else 0


def _versions() -> list[Found]:
    versions = library_versions(*LIBRARIES)
    python = Found("python", State.WELL, f"{platform.python_version()} on {platform.platform()}")
    return [python] + [
        Found(name, State.WELL if version else State.BROKEN, version or "not installed; run make")
        for name, version in versions.items()
    ]


def _device() -> list[Found]:
    device, machine = choose_device("auto"), hardware()
    named = machine["accelerator"] or machine["processor"] or "unknown processor"
    threads = f"{torch.get_num_threads()} threads on {machine['cores']} cores, {machine['memory_gb']} GB of memory"
    return [
        Found("device", State.WELL, f"{device.type}: {named}"),
        Found("dtype", State.WELL, _dtype(device)),
        Found("threads", State.WELL, threads),
    ]


def _dtype(device: torch.device) -> str:
    """What a study computes in that leaves it open; on a processor for products of SmolLM2's sizes."""
    dtype = choose_dtype("auto", device)
    if device.type == "cpu" and dtype == torch.bfloat16:
        speeds, _ = product_speeds(*SIZES)
        dtype = torch.bfloat16 if bfloat16_pays(*SIZES) else torch.float32
        ratio = speeds[torch.bfloat16] / speeds[torch.float32]
        return f"{words(dtype)}, where a study leaves it open: products in bfloat16 are {ratio:.1f} x as fast here"
    return f"{words(dtype)}, where a study leaves it open"


def words(dtype: torch.dtype) -> str:
    """`dtype` without torch's name."""
    return str(dtype).removeprefix("torch.")


def _self_tests() -> list[Found]:
    """Run the self-tests of loading on a bundled model, in both dtypes that are used."""
    usual, found = words(choose_dtype("auto", choose_device("auto"))), []
    for dtype in dict.fromkeys(("float32", usual)):
        try:
            loaded = load_model(TINY[0], dtype=dtype)
        except Exception as error:
            found.append(Found(f"self-tests, {dtype}", State.BROKEN, reason(error)))
            continue
        found += [Found(f"{each.name}, {dtype}", State.WELL, str(each)) for each in loaded.self_tests]
    return found


def _models() -> list[Found]:
    """Check that the bundled models load, and that packaged ones are the files that their packages list."""
    found = []
    for name in TINY:
        try:
            loaded = load_model(name, device="cpu")
        except GradinocError as error:
            found.append(Found(f"model {name}", State.BROKEN, str(error)))
        else:
            found.append(Found(f"model {name}", State.WELL, f"sha256 {loaded.fingerprint[:16]}"))
    return [*found, *map(_packaged, PACKAGED)]


def _packaged(name: str) -> Found:
    what, packaged = f"model {name}", PACKAGED[name]
    try:
        files = packaged_files(name)
    except GradinocError as error:
        return Found(what, State.NOTE, f"{error} (only studies of this model need it)")
    try:
        digest = packaged_digest(name)
    except GradinocError as error:
        return Found(what, State.BROKEN, str(error))
    if packaged.sha256 is not None:
        return Found(what, State.WELL, f"sha256 {digest[:16]}, as it is known by")
    listed = _listed(packaged.distribution, files[0].name)
    if listed is not None and listed != urlsafe_b64encode(bytes.fromhex(digest)).rstrip(b"=").decode():
        return Found(what, State.BROKEN, f"{files[0]} is not the file that its package lists; install it again")
    return Found(what, State.WELL, f"sha256 {digest[:16]}{'' if listed is None else ', as its package lists it'}")


def _listed(distribution: str, file: str) -> str | None:
    """Return the checksum in a package's own list of one of its files, base64 of SHA-256."""
    files = importlib.metadata.distribution(distribution).files or []
    return next((each.hash.value for each in files if each.name == file and each.hash), None)


def _hub() -> list[Found]:
    if constants.HF_HUB_OFFLINE:
        return [Found("hub", State.NOTE, "offline, as HF_HUB_OFFLINE asks; models and data of the cache can be used")]
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception as error:  # which HTTP library's errors arrive depends on the version of huggingface_hub
        detail = f"{constants.ENDPOINT} is out of reach ({reason(error)}); bundled models and folders need none"
        return [Found("hub", State.NOTE, detail)]
    return [Found("hub", State.WELL, f"{constants.ENDPOINT} answers")]


def _places(store: Path, artifacts: Path) -> list[Found]:
    """Check that each folder can be written to, has room, and supports locks; a store does without the system's."""
    found = []
    for what, folder in (("store", store), ("artifacts", artifacts), ("cache", cache_folder())):
        whole = folder.absolute()
        there = next(each for each in (whole, *whole.parents) if os.path.exists(each))  # noqa: PTH110 - see `sources`
        try:
            with tempfile.TemporaryDirectory(prefix=".gradinoc-", dir=there) as scratch:
                locks, holds = probed(Path(scratch)), excludes(Path(scratch))
        except OSError as error:
            found.append(Found(what, State.BROKEN, f"{there}: cannot be written to ({reason(error)})"))
            continue
        free = shutil.disk_usage(there).free
        if what == "store" and locks.leased:
            found.append(Found(what, State.NOTE, f"{folder}: {size(free, 'B')} free; locks are leases, as {locks.why}"))
        elif not holds:
            found.append(Found(what, State.BROKEN, f"{there}: locks do not work; use a local disk, or one worker"))
        elif free < SPACE:
            found.append(Found(what, State.NOTE, f"{folder}: {size(free, 'B')} free; a study may need more"))
        else:
            found.append(Found(what, State.WELL, f"{folder}: {size(free, 'B')} free"))
    return found


def examine_model(model: str, study: str, settings: Sequence[str]) -> None:
    """Print a model's self-tests, the notes on it, and the prompts of a study as it reads them.

    The model is loaded as the study would load it, in both dtypes if directions are found in another one.

    Raises:
        GradinocError: it cannot be used; the message says why and what to do.
    """
    asked = load_study(study, list(settings))  # of which threads are left to the machine
    described = asked.model_copy(update={"model": asked.model.model_copy(update={"id": model, "threads": 0})})
    notes = check(described)
    context = StudyContext(described, split(described.data))
    loaded = context.language_model
    sys.stdout.write(f"{printable(loaded.name)}, fingerprint {context.fingerprint[:16]}\n\n")
    distinct = dict.fromkeys([*notes, *loaded.notes])
    print_table(("", "noted"), [[str(place), note] for place, note in enumerate(distinct, start=1)])
    _print_self_tests(loaded, "As gradients are measured")
    if context.extraction_differs:
        _print_self_tests(context.extraction_model(), "As directions are found")
    sys.stdout.write(f"\n{PROMPTS}\n\n")
    print_table(("prompt or tokens", "as the model reads it"), context.rendered(loaded.tokenizer).rows())
    sys.stdout.write("\nThe model is fit for a study.\n")


def _print_self_tests(loaded: LanguageModel, when: str) -> None:
    sys.stdout.write(f"\n{when}\n\n")
    print_table(("self-test", "came to"), [list(each) for each in loaded.tried.items()])
