"""`gradinoc store` with its commands, and `gradinoc steps`: results that get from one store into another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradinoc.cli.commands.arguments import DEFAULT_ARTIFACTS, DEFAULT_STORE, Artifacts, Settings, Store, StudyName

EXAMPLES = """\b
Examples:
  gradinoc store list
  gradinoc store verify --store share-3
  gradinoc store export 3f9a 77c0 --out to-be-sent
  gradinoc store merge share-1 share-2 to-be-sent/training-3f9a.tar
"""
app = typer.Typer(
    help="Results in a store: list, verify, export, merge.", epilog=EXAMPLES, rich_markup_mode=None,
    no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@app.command("list", short_help="What a store holds.")
def listed(store: Store = DEFAULT_STORE) -> None:
    """List every result: its stage, the beginning of its key, what it is of, its size, when it was computed."""
    from gradinoc.cli.store import list_results

    list_results(store)


@app.command(short_help="Whether every result is whole.")
def verify(store: Store = DEFAULT_STORE) -> None:
    """Take every checksum, and name the results that are not as they were written; exit code 2 if there are any."""
    from gradinoc.cli.store import verify_results

    verify_results(store)


@app.command(short_help="Results as files to be sent.")
def export(
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="Keys of results, or their beginnings.")],
    store: Store = DEFAULT_STORE,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the files go.")] = Path(),
) -> None:
    """Write each result as one file, STAGE-KEY.tar, which `gradinoc store merge` takes."""
    from gradinoc.cli.store import export_results

    export_results(store, keys, out)


@app.command(short_help="Take results of other stores.")
def merge(
    others: Annotated[list[Path], typer.Argument(metavar="OTHER...", help="Stores, or files of `export`.")],
    store: Store = DEFAULT_STORE,
) -> None:
    """Take every result of other stores that this one lacks; exit code 2 if one was not taken.

    A key that has other bytes there is named with the files that differ, and this store's result is kept; so is what
    is damaged, which is not taken.
    """
    from gradinoc.cli.store import merge_stores

    merge_stores(store, others)


def steps(
    context: typer.Context,
    study: StudyName,
    shard: Annotated[str, typer.Option(metavar="N/COUNT", help="Which share, of how many.")],
    settings: Settings = None,
    store: Store = DEFAULT_STORE,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
) -> None:
    """Compute one of several shares of a study into a store of its own: in a job array, or on machines apart.

    `gradinoc store merge` makes one store of all, and `gradinoc run` computes the steps that need several shares.
    """
    from gradinoc.cli.store import compute_share

    compute_share(context.obj, study, settings or [], store, artifacts, shard)
