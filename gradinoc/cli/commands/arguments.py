"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def ready(incomplete: str) -> list[str]:
    """Return the ready studies whose names begin so, for the shell to complete."""
    folder = Path(__file__).parents[2] / "study" / "ready"
    return sorted(file.stem for file in folder.glob("*.toml") if file.stem.startswith(incomplete))


StudyName = Annotated[
    str,
    typer.Argument(metavar="STUDY", help="A ready study's name, a TOML file, or a frozen plan.", autocompletion=ready),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the study; may be given several times."),
]
Store = Annotated[Path, typer.Option(metavar="DIR", help="Where results are kept and found again.")]
Artifacts = Annotated[Path, typer.Option(metavar="DIR", help="What a study comes to, in a folder of its name.")]
Engine = Annotated[
    str, typer.Option(metavar="ENGINE", help="What computes: local, ray, or a cluster, ray://HOST:PORT, ray:HOST:PORT.")
]
Frozen = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The plan frozen before; the report says that the study is that, or is not."),
]
OnEngine = Annotated[
    bool, typer.Option("--engine", help="Time on several workers (engine.workers), of larger studies too.")
]
Past = Annotated[
    str | None,
    typer.Option(metavar="STUDY", help="The study whose variances and effects power rests on (default: tiny's)."),
]
DEFAULT_STORE, DEFAULT_ARTIFACTS = Path("store"), Path("artifacts")
