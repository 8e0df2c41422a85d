"""Run a study without pytest, rewrite its report from what the store holds, or plan it: `python -m gradinoc STUDY`.

With `--design` nothing is run and no model is loaded: it prints the smallest p that each claim can reach and the power
of the study, by simulation, and writes both to the artifacts folder.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gradinoc.analysis.power import plot_power
from gradinoc.analysis.style import save_figure
from gradinoc.design import dead_ends, design_of, design_warnings, opening, smallest_p_table
from gradinoc.disk import disk_errors, encodable, write_atomically
from gradinoc.errors import GradinocError, StudyError
from gradinoc.evidence import Evidence
from gradinoc.interruption import ending_at_once, interrupted
from gradinoc.planning import SIMULATIONS, power, written
from gradinoc.prospects import OBSERVED, OF_INTEREST
from gradinoc.report import environment, write_report
from gradinoc.report.tables import write_table
from gradinoc.study import Study, load_study
from gradinoc.variances import TINY, Variances, estimate, load_variances
from gradinoc.verdict import judge

if TYPE_CHECKING:
    from gradinoc.pipeline import Progress

VARIANCES = "variances.json"


def main(arguments: list[str] | None = None) -> int:
    """Run, report or plan a study; 0 whatever the verdict or the design, 2 where what was asked for cannot be done.

    SIGINT (Ctrl-C) and SIGTERM end the process at once, with 130 and 143 and a line that says how to go on.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.past and not options.design:
        parser.error("--past: belongs to --design, which plans a study from the variances of a past one")
    again = shlex.join(["python", "-m", "gradinoc", *(sys.argv[1:] if arguments is None else arguments)])
    heard: deque[Progress] = deque(maxlen=1)

    def last_words() -> str:
        counts = [(progress.steps_done, progress.steps) for progress in heard]
        return interrupted(again, options.store, *(counts[0] if counts else ()))

    try:
        with ending_at_once(last_words):
            study = load_study(options.study, options.settings)
            if options.design:
                _plan(study, options)
            else:
                _run(study, options, heard)
    except GradinocError as error:
        parser.exit(2, f"gradinoc: error: {error}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gradinoc", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", help="a ready study's name, or a TOML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--store", type=Path, default=Path("store"))
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    plan = parser.add_argument_group("before anything runs")
    plan.add_argument("--design", action="store_true", help="what the study can decide, with what power; runs nothing")
    plan.add_argument(
        "--past", metavar="STUDY", help="the study whose variances and effects the power rests on (default: tiny's own)"
    )
    plan.add_argument(
        "--simulations", type=_positive, default=SIMULATIONS, metavar="N",
        help="simulated studies for each number of examples and of seeds (default: %(default)s)",
    )  # fmt: skip
    plan.add_argument("--jobs", type=_positive, default=0, metavar="N", help="processes (default: one a core)")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected one or more, received {number}")
    return number


def _run(study: Study, options: argparse.Namespace, heard: deque[Progress]) -> None:
    """Compute what is missing, write the report and the variances for later plans, print the summary.

    `heard` is where the study was last heard of.
    """
    from gradinoc.pipeline import Pipeline  # here: a plan does without torch
    from gradinoc.preflight import check
    from gradinoc.store import Store

    _say([*opening(study), *check(study)])

    def tell(progress: Progress) -> None:
        heard.append(progress)
        _show(progress)

    folder = options.artifacts / study.name
    encodable(folder, "artifacts")
    with disk_errors(folder, "artifacts"):  # now, and not when hours of work are to be written down
        folder.mkdir(parents=True, exist_ok=True)
    pipeline = Pipeline(study, Store(options.store), tell)
    evidence = pipeline.evidence()
    made = environment(study, [step.entry.manifest() for step in pipeline.steps.values()])
    settings = [word for setting in options.settings for word in ("--set", setting)]
    command = shlex.join(["python", "-m", "gradinoc", options.study, *settings])
    write_report(judge(evidence, study.rules), evidence, study, folder, made, command)
    _write_variances(evidence, study, folder)
    sys.stdout.write((folder / "summary.txt").read_text(encoding="utf-8"))


def _write_variances(evidence: Evidence, study: Study, folder: Path) -> None:
    """Leave the study's variances for later plans, unless they cannot be estimated."""
    try:
        found = estimate(evidence, study.rules, study.name)
    except ValueError as error:
        _say([f"no variances for later plans: {error}"])
        return
    write_atomically(folder / VARIANCES, f"{found.model_dump_json(indent=2)}\n".encode())


def _plan(study: Study, options: argparse.Namespace) -> None:
    """Print and write smallest p and power; what cannot be decided comes first."""
    design, folder = design_of(study), options.artifacts / study.name
    ends = [f"CANNOT DECIDE {end}" for end in dead_ends(design)]
    cautions = design_warnings(design)[len(ends) :]
    sys.stdout.write("".join(f"{line}\n\n" for line in (*ends, *cautions)))
    sys.stdout.flush()
    variances = _past(options) if options.past else load_variances(TINY)
    effects = [OF_INTEREST, OBSERVED] if options.past else [OF_INTEREST]
    table = power(study, variances, effects, options.simulations, options.jobs, _counter())
    sys.stdout.write(written(study, variances, table))
    write_table(table, folder / "design.csv")
    write_table(smallest_p_table(study), folder / "design_smallest_p.csv")
    figure, _ = save_figure(plot_power(table, design.examples, design.seeds), folder / "figures", "design_power")
    sys.stdout.write(f"\nTable: {folder / 'design.csv'}\nFigure: {figure}\n")


def _past(options: argparse.Namespace) -> Variances:
    """The variances of the past study: from its evidence in the store, else from the file that its report left.

    Raises:
        StudyError: neither is there, or they cannot be estimated.
    """
    from gradinoc.pipeline import Pipeline
    from gradinoc.store import Store

    past = load_study(options.past)
    pipeline = Pipeline(past, Store(options.store))
    missing = [label for label, step in pipeline.steps.items() if not step.entry.complete()]
    left = options.artifacts / past.name / VARIANCES
    try:
        if not missing:
            return estimate(pipeline.evidence(), past.rules, past.name)
        if left.is_file():
            return load_variances(left)
    except ValueError as error:
        raise StudyError(f"--past {options.past}: {error}") from error
    raise StudyError(
        f"--past {options.past}: the store {options.store} lacks {len(missing)} of its {len(pipeline.steps)} steps "
        f"({missing[0]!r} first), and there is no {left}; run it first: python -m gradinoc {options.past}"
    )


def _say(lines: Sequence[str]) -> None:
    sys.stderr.write("".join(f"{line}\n" for line in lines))


def _show(progress: Progress) -> None:
    sys.stderr.write(f"[{progress.steps_done}/{progress.steps}] {progress.step}: {progress.detail}\n")


def _counter() -> Callable[[int, int], None]:
    """Says how many studies are simulated, about ten times in all."""
    said = 0

    def tell(done: int, total: int) -> None:
        nonlocal said
        if done * 10 // total > said:
            said = done * 10 // total
            _say([f"simulated studies: {done}/{total}"])

    return tell


if __name__ == "__main__":
    sys.exit(main())
