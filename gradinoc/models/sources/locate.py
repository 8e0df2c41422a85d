"""Where a model's files come from (bundled, a folder, a GGUF file, a hub repository) and what identifies them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from gradinoc.data.formats import instead_of
from gradinoc.disk import is_address
from gradinoc.errors import ModelError, quoted, reason, shown
from gradinoc.models.sources.accepted import ensure_revision
from gradinoc.models.sources.converted import converted, digest_of
from gradinoc.models.sources.packaged import BUNDLED, PACKAGED, bundled_folder, packaged_digest

# The files of a repository or folder that determine what a model computes: weights, configuration, tokenizer.
MODEL_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
# Left out: other formats' folders, and the second copy of the weights that some repositories carry.
SELECTION: dict[str, Any] = {"allow_patterns": MODEL_FILES, "ignore_patterns": ["*/*", "consolidated*"]}
DESCRIPTION: dict[str, Any] = {**SELECTION, "allow_patterns": MODEL_FILES[1:]}
# Further templates of a folder, of which one called default.jinja would be the template; none is fetched from a hub.
READ_FROM_FOLDER = [*MODEL_FILES, "additional_chat_templates/*.jinja"]
COMMIT = re.compile(r"[0-9a-f]{40}")


def locate(name: str, revision: str | None = None) -> tuple[Path, str]:
    """The folder with the files of model `name`, downloaded or converted where needed, and its fingerprint.

    Raises:
        ModelError: no such model, or the hub is out of reach and the model is not in the cache.
    """
    folder = _here(name)
    if folder is not None:
        return folder, fingerprint(name)
    snapshot = _snapshot(name, revision, SELECTION)
    return snapshot, snapshot.name


def described(name: str, revision: str | None = None) -> tuple[Path, bool]:
    """The folder with configuration and tokenizer of model `name`, and whether its weights should be in it too.

    Of a hub model nothing else is fetched.

    Raises:
        ModelError: as `locate`.
    """
    folder = _here(name)
    if folder is not None:
        return folder, True
    return _snapshot(name, revision, DESCRIPTION), False


def fingerprint(name: str, revision: str | None = None) -> str:
    """Identity of the weights, configuration and tokenizer of model `name`, found without loading them.

    A hub model's resolved commit (from the cache when the hub is out of reach); the digest of a
    GGUF file, a packaged one's too; otherwise SHA-256 over the names and contents of the folder's model files. In hex.

    Raises:
        ModelError: no such model, or the hub is out of reach and the model is not in the cache.
    """
    if name in PACKAGED:
        return packaged_digest(name)
    if (file := gguf_file(name)) is not None:
        return digest_of([file])
    folder = _here(name)
    if folder is not None:
        return _folder_digest(folder)
    ensure_revision(revision)
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    try:
        return _hub_commit(name, revision)
    except Exception as error:  # see `_snapshot`
        return _cached(name, revision, error).name


def gguf_file(name: str) -> Path | None:
    """The GGUF file that `name` is a path of, or None if it reads as something else.

    Raises:
        ModelError: there is no such file.
    """
    file = Path(os.path.expanduser(name))  # noqa: PTH111 - Path's own raises where there is no such user
    if not is_gguf(name) or os.path.isdir(file):  # noqa: PTH112 - Path's own raises where a name is too long
        return None
    if not os.path.isfile(file):  # noqa: PTH113 - as above
        raise ModelError(
            f"{shown(name)}: no such file; expected the path of a GGUF file (of a hub's repository: hf download "
            "REPOSITORY FILE, and the path that it prints)"
        )
    return file


def is_gguf(name: str) -> bool:
    """Whether `name` reads as the path of a GGUF file."""
    return name.lower().endswith(".gguf")


def _here(name: str) -> Path | None:
    """The folder of a model that needs no hub: bundled, a folder, or a GGUF file, which is converted on first use."""
    if name in BUNDLED:
        return bundled_folder(name)
    file = gguf_file(name)
    return _local_folder(name) if file is None else converted([file], "gguf", digest_of([file]))


def _hub_commit(name: str, revision: str | None) -> str:
    """What `revision` stands for now. One request, never repeated: a hub out of reach shows in seconds."""
    return str(HfApi().repo_info(name, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT).sha)


def _snapshot(name: str, revision: str | None, selection: Mapping[str, Any]) -> Path:
    """The folder with the selected files of a hub model; the cached one when the hub is out of reach."""
    ensure_revision(revision)
    try:
        _hub_commit(name, revision)
        return Path(snapshot_download(name, revision=revision, **selection))
    except Exception as error:  # which HTTP library's errors arrive depends on the version of huggingface_hub
        return _cached(name, revision, error)


def _cached(name: str, revision: str | None, reason: Exception) -> Path:
    """The folder of the cached commit that `revision` last stood for; `reason` is why the hub is no help."""
    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True, **SELECTION))
    except (LocalEntryNotFoundError, ValueError):
        raise _hub_error(name, revision, reason) from reason


def _local_folder(name: str) -> Path | None:
    """The folder that `name` is a path of, or None if it reads as a hub id.

    Raises:
        ModelError: it is a path that leads to no model, or an address.
    """
    if is_address(name):
        raise ModelError(
            f"{quoted(name)} is no model: expected a bundled name, a folder or a hub id; "
            + instead_of(name, dataset=False)
        )
    folder = Path(os.path.expanduser(name))  # noqa: PTH111 - Path's own raises where there is no such user
    if os.path.isfile(folder / "config.json"):  # noqa: PTH113 - Path's own raises where a name is too long
        return folder
    there = os.path.isdir(folder)  # noqa: PTH112 - as above
    if there or folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        files = sorted(each.name for each in folder.glob("*.[gG][gG][uU][fF]")) if there else []
        instead = f"; give the path of the GGUF file itself: {folder / files[0]}" if files else ""
        raise ModelError(
            f"{shown(name)} is no folder with a model: expected config.json, safetensors and tokenizer files in it"
            f"{instead}"
        )
    return None


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted({file for pattern in READ_FROM_FOLDER for file in folder.glob(pattern) if file.is_file()}):
        with file.open("rb") as content:
            digest.update(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _hub_error(name: str, revision: str | None, error: Exception) -> ModelError:
    cause = reason(error)
    wanted = f"{shown(name)} at revision {shown(revision)}" if revision else shown(name)
    if isinstance(error, (RepositoryNotFoundError, RevisionNotFoundError, ValueError)):
        return ModelError(
            f"No model {wanted} at {constants.ENDPOINT} ({cause}); bundled models are {list(BUNDLED)}; "
            "a private or gated model needs `hf auth login`"
        )
    return ModelError(
        f"Model {wanted} is not bundled, no folder, not in the cache; and the hub {constants.ENDPOINT} is "
        f"out of reach ({cause}). Set HF_ENDPOINT to a hub or mirror within reach, "
        f"or HF_HOME to a cache that holds it, or give a folder, or use a bundled model: {list(BUNDLED)}"
    )
