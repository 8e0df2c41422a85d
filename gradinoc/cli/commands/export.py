"""`gradinoc export`: what leaves a study for a repository of results, a release, or another project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """\b
Examples:
  gradinoc export record artifacts/smollm2 --out published/smollm2 --figure plot16_prompts
  gradinoc export release artifacts/smollm2 artifacts/causal-smollm2 --out release
  gradinoc export pr artifacts/smollm2 path/to/inoculation-prompting
"""
app = typer.Typer(
    help="A finished study for others: record, release, pull request.", epilog=EXAMPLES, rich_markup_mode=None,
    no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
Artifacts = Annotated[Path, typer.Argument(metavar="DIR", help="A study's artifacts folder, with a report.")]


@app.command(short_help="The part to be published beside a page.")
def record(
    artifacts: Artifacts,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where it goes: a new folder, or an earlier record.")],
    figure: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A figure to be published; may be given several times.")
    ] = None,
) -> None:
    """Copy what pages about a study rest on: verdict, description, surroundings, four tables, the figures named.

    `gradinoc reproduce` compares with it. Figures that an earlier record left in the folder are removed.
    """
    from gradinoc.cli.export import export_record

    export_record(artifacts, out, figure or [])


@app.command(short_help="Adapters, directions and tables of studies.")
def release(
    artifacts: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Artifacts folders, with reports.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The release's folder; one that is there is replaced.")],
    license_name: Annotated[
        str | None, typer.Option("--license", metavar="NAME", help="What the card names as its license, as mit.")
    ] = None,
) -> None:
    """Make a folder of what studies leave for other tools, with a card for each and for the whole, and checksums."""
    from gradinoc.cli.export import export_release

    export_release(artifacts, out, license_name)


@app.command(short_help="An experiment for inoculation-prompting.")
def pr(
    artifacts: Artifacts,
    checkout: Annotated[Path, typer.Argument(metavar="CHECKOUT", help="Of the inoculation-prompting repository.")],
    prefix: Annotated[str, typer.Option(metavar="NAME", help="What the folder's name begins with there.")] = "C02",
) -> None:
    """Write a study as a folder of that repository's `experiments`: README, training data, CSVs, plot."""
    from gradinoc.cli.export import export_pull_request

    export_pull_request(artifacts, checkout, prefix)
