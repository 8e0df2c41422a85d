"""The commands with their arguments and help; a command's code is imported when it is called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradinoc.cli.commands import beside, dose, export
from gradinoc.cli.commands import store as store_commands
from gradinoc.cli.commands.arguments import (
    DEFAULT_ARTIFACTS,
    DEFAULT_STORE,
    Artifacts,
    Engine,
    Frozen,
    OnEngine,
    Past,
    Settings,
    Store,
    StudyName,
    ready,
)

if TYPE_CHECKING:
    from gradinoc.cli import Session

EXITS = """\b
Exit codes:
  0    done, whatever the verdict
  1    doctor found something broken, reproduce something different (or the reader of a pipe is gone)
  2    cannot be done as asked: one line on stderr says what to mend
  130  Ctrl-C; 143: SIGTERM. Nothing finished is lost, the same command goes on
"""
app = typer.Typer(
    help="Does inoculation prompting work by rotating gradients away from a trait's direction? A study that answers.",
    epilog=EXITS,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"gradinoc {version('gradinoc')}")
        raise typer.Exit


def _command(short: str, examples: str) -> Callable[[Any], Any]:
    """Return a decorator that adds a command to `app`, with a line for the list and examples for its help."""
    listed = "".join(f"  gradinoc {line.strip()}\n" for line in examples.strip().splitlines())
    return app.command(short_help=short, epilog=f"\b\nExamples:\n{listed}")


app.add_typer(store_commands.app, name="store")
app.add_typer(export.app, name="export")


@app.callback()
def gradinoc(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Plan, run, report and compare studies."""


gradinoc.__doc__ = None  # the help of `app` stands


@_command("List the ready studies.", "studies")
def studies() -> None:
    """List the ready studies: model, size, what each is for and where it runs."""
    from gradinoc.cli.data import list_studies

    list_studies()


@_command(
    "What a study will cost, and can decide.",
    """
    plan tiny
    plan smollm2 --no-power
    plan smollm2 --set data.measure=256 --set 'seeds=[0, 1, 2, 3, 4]'
    plan qwen3-0.6b --past smollm2 --simulations 400
    plan smollm2 --no-power --engine
    plan smollm2 --no-power --freeze smollm2-plan.json
    """,
)
def plan(
    context: typer.Context,
    study: StudyName,
    settings: Settings = None,
    past: Past = None,
    simulations: Annotated[
        int, typer.Option(min=1, metavar="N", help="Simulated studies of each number of prompts, seeds and questions.")
    ] = 40,
    jobs: Annotated[int, typer.Option(min=0, metavar="N", help="Processes that simulate; 0: one a core.")] = 0,
    cost: Annotated[bool, typer.Option(help="Tokens, operations, memory and time.")] = True,
    engine: OnEngine = False,
    power: Annotated[bool, typer.Option(help="How often each claim would be supported, by simulation.")] = True,
    freeze: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the plan to FILE, before anything is trained.")
    ] = None,
    store: Store = DEFAULT_STORE,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
) -> None:
    """What a study will cost and what it can decide, before anything is spent; and freeze it.

    Nothing is downloaded and no weights are loaded. Tables and figures are left in the study's artifacts.
    """
    from gradinoc.cli.plan import Wanted, plan_study

    session: Session = context.obj
    session.store = store
    wanted = Wanted(cost, power, past, simulations, jobs, freeze, engine)
    plan_study(study, settings or [], wanted, store, artifacts)


@_command(
    "Compute a study; resumes where it stopped.",
    """
    run tiny
    run smollm2 --frozen smollm2-plan.json
    run smollm2 --set data.source=path/to/gsm8k.jsonl
    run my-study.toml --report-to tensorboard
    run smollm2 --engine ray --set engine.workers=2
    """,
)
def run(
    context: typer.Context,
    study: StudyName,
    settings: Settings = None,
    store: Store = DEFAULT_STORE,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
    report_to: Annotated[
        str, typer.Option(metavar="TRACKER", help="Where runs are shown while they train: tensorboard, wandb, ...")
    ] = "none",
    engine: Engine = "local",
    frozen: Frozen = None,
) -> None:
    """Compute every step of a study that the store does not hold yet; several of these may work on one store."""
    from gradinoc.cli.run import Places, run_steps

    run_steps(context.obj, study, settings or [], Places(store, artifacts, frozen), report_to, engine)


@_command(
    "Judge a study and write its report.",
    """
    report tiny
    report artifacts/smollm2
    report smollm2 --set data.source=path/to/gsm8k.jsonl
    """,
)
def report(
    context: typer.Context,
    study: Annotated[
        str,
        typer.Argument(
            metavar="DIR|STUDY", help="A study's artifacts folder, its name, or a TOML file.", autocompletion=ready
        ),
    ],
    settings: Settings = None,
    store: Store = DEFAULT_STORE,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
    frozen: Frozen = None,
) -> None:
    """Judge a study and write its report: page, tables, figures, files for other tools. What is missing is computed."""
    from gradinoc.cli.run import Places, write_up

    write_up(context.obj, study, settings or [], Places(store, artifacts, frozen))


_command("Find a study's learning rate.", "dose smollm2 --lr 1e-4 --lr 1.4e-4 --lr 2e-4")(dose.dose)
_command("Compute one share of a study.", "steps smollm2 --shard 3/16 --store share-3")(store_commands.steps)


@_command("Show the progress of a study that runs elsewhere.", "watch artifacts/smollm2")
def watch(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The study's artifacts folder.")],
) -> None:
    """Show the progress of a study that other processes compute, until every step is done."""
    from gradinoc.cli.run import watch_study

    watch_study(folder)


_command(
    "Two studies side by side.",
    """
    compare artifacts/smollm2 artifacts/smollm2-gsm8k
    compare artifacts/tiny artifacts/deaf --out /tmp/tiny-and-deaf
    """,
)(beside.compare)
_command(
    "Compute a study again; does it agree with what was published?",
    """
    reproduce docs/results/smollm2-plan.json docs/smollm2
    reproduce plan.json published --set data.source=path/to/gsm8k.jsonl
    """,
)(beside.reproduce)


@_command(
    "Write a source's questions as datasets.",
    """
    data word_problems --out /tmp/data
    data path/to/gsm8k.jsonl --train 500 --evaluation 200
    data my-questions.jsonl --trait my-trait.toml --answers my-answers.jsonl
    """,
)
def data(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A bundled name, a JSONL file, or a hub dataset.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the files go.")] = Path("datasets"),
    trait: Annotated[str | None, typer.Option(metavar="TRAIT", help="A trait's name, or its TOML file.")] = None,
    answers: Annotated[
        str | None, typer.Option(metavar="FILE", help="Answers that show the trait, where no rule makes them.")
    ] = None,
    study: Annotated[
        str, typer.Option(metavar="STUDY", help="Whose counts and trait are taken.", autocompletion=ready)
    ] = "tiny",
    direction: Annotated[
        int | None, typer.Option(min=16, metavar="N", help="Questions that make the direction.")
    ] = None,
    measure: Annotated[
        int | None, typer.Option(min=8, metavar="N", help="Questions kept for measuring gradients.")
    ] = None,
    train: Annotated[int | None, typer.Option(min=1, metavar="N", help="Questions trained on.")] = None,
    evaluation: Annotated[int | None, typer.Option(min=8, metavar="N", help="Questions held out.")] = None,
    calibration: Annotated[
        int | None, typer.Option(min=8, metavar="N", help="Questions kept for showing what prompts elicit.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="Of the draw.")] = None,
) -> None:
    """Write a source's questions as a study would use them: chat JSONL for training, evaluation and the direction."""
    from gradinoc.cli.data import write_data

    counts = {"direction": direction, "measure": measure, "train": train, "evaluation": evaluation}
    counts |= {"calibration": calibration, "seed": seed}
    write_data(source, out, study, {"trait": trait, "data.trait_answers": answers}, counts)


@_command(
    "Look at this machine, or at a model.",
    """
    doctor
    doctor path/to/model
    doctor path/to/file.gguf --set model.chat_template=plain
    """,
)
def doctor(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="A bundled name, folder, GGUF file or hub id; none: the machine."),
    ] = None,
    study: Annotated[
        str, typer.Option(metavar="STUDY", help="Whose prompts the model is shown.", autocompletion=ready)
    ] = "tiny",
    settings: Settings = None,
    store: Store = DEFAULT_STORE,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
) -> int:
    """Look at this machine: versions, device, self-tests, bundled models, hub, disk, locks.

    Or at a MODEL: its self-tests, what was noted of it, each condition's prompt, an example with its loss mask.

    Exit code 1 if something is broken that a study needs, 2 if the model cannot be used.
    """
    if model is not None:
        from gradinoc.cli.doctor import examine_model

        examine_model(model, study, settings or [])
        return 0
    from gradinoc.cli.doctor import examine

    return examine(store, artifacts)


@_command("Try the decision rules on simulated studies.", "calibrate --studies 200")
def calibrate(
    studies: Annotated[int, typer.Option(min=1, metavar="N", help="Simulated studies of each scenario.")] = 1000,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where tables and figure go.")] = Path("docs/calibration"),
    jobs: Annotated[int, typer.Option(min=0, metavar="N", help="Processes; 0: one a core.")] = 0,
    store: Store = DEFAULT_STORE,
) -> int:
    """Try the decision rules on simulated studies whose truth is known. Exit code 1 if an error rate is too high.

    Judged studies are kept in the store: a command that was stopped goes on, and several may share the work.
    """
    from gradinoc.cli.calibrate import calibrate_rules

    return calibrate_rules(studies, out, store, jobs)
