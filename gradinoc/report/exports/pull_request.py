"""A study as an experiment of the inoculation-prompting repository: a folder that a pull request to it can add.

There an experiment is a folder in `experiments/` with numbered stages. That repository's git ignores folders called
`results` and `figures`, so that numbered ones hold what a study came to.

Source: https://github.com/inoculation-prompting/inoculation-prompting, `experiments/`, `.gitignore`, and for chat JSONL
with a system message `ip/experiments/utils.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from gradinoc.data.examples import showing
from gradinoc.data.export import BUNDLED, write_chat
from gradinoc.data.splits import split
from gradinoc.disk import files_below, write_atomically
from gradinoc.errors import StudyError
from gradinoc.measure.training.order import data_order
from gradinoc.pipeline.context import StudyContext
from gradinoc.report.exports.cards import rendered
from gradinoc.report.exports.folders import whole_folder
from gradinoc.report.exports.inoculation_prompting import IN_DISTRIBUTION, groups_of
from gradinoc.report.exports.record import Record
from gradinoc.report.exports.tables import read_table
from gradinoc.report.figures.style import BEFORE_TRAINING, LOOKS, WIDE, new_figure, save_figure, styled
from gradinoc.report.folder import FROZEN_PLAN
from gradinoc.report.tables import write_table
from gradinoc.report.wording import sentence, shown
from gradinoc.study.description import Study
from gradinoc.study.prompts.family import Family, Prompt
from gradinoc.study.traits.registry import find_trait

EXPERIMENTS = "experiments"
DATA, RESULTS, PLOTS = "01_training_data", "02_results", "03_plots"
MARK = "<!-- made by `gradinoc export pr`, which may replace this folder -->"
ARMS = "arms.csv"
COPIED = ("claims.csv", "prompts.csv", "runs.csv", "study.json")


def write_pull_request(study: Study, artifacts: Path, checkout: Path, prefix: str) -> Path:
    """Write a study, whose artifacts these are, into a checkout of that repository, and return the new folder.

    | path in `experiments/<prefix>_<study>/` | what |
    |---|---|
    | `README.md` | question, design, result, how to repeat it |
    | `01_training_data/<trait>_<condition>.jsonl` | chat JSONL by prompt, of bundled questions and answers alone |
    | `02_results/<trait>.csv`, `<trait>_ci.csv` | scores and intervals in that repository's form |
    | `02_results/claims.csv`, `prompts.csv`, `runs.csv` | every number of a claim, drift by prompt and by run |
    | `02_results/study.json`, `frozen-plan.json` | the study's description, which `gradinoc run` takes, and its plan |
    | `03_plots/<trait>_ci.png` | the intervals by group and evaluation |

    An earlier export of the study is replaced, once the new one is complete. Runs with an intervention are in
    `runs.csv`, and `arms.csv` says what each had done to it.

    Raises:
        StudyError: no checkout, artifacts without a report, or a folder of that name that is something else.
        DataError: the study's questions are not to be had.
        StoreError: the disk refuses.
    """
    record, trait = Record(artifacts), find_trait(study.trait)
    if not (checkout / EXPERIMENTS).is_dir():
        raise StudyError(f"{checkout}: no folder {EXPERIMENTS} in it; expected a checkout of inoculation-prompting")
    place = checkout / EXPERIMENTS / f"{prefix}_{record.name}"
    card = place / "README.md"
    if place.exists() and not (card.is_file() and MARK in card.read_text(encoding="utf-8", errors="replace")):
        raise StudyError(f"{place}: is something else; name another --prefix")
    scores = f"inoculation_prompting/{trait.name}"
    found = [artifacts / name for name in (f"{scores}_ci.csv", f"{scores}.csv", *COPIED)]
    if missing := next((path for path in found if not path.is_file()), None):
        raise StudyError(f"{missing}: no such file; expected a study's artifacts, with a report")
    found += [artifacts / FROZEN_PLAN] if (artifacts / FROZEN_PLAN).is_file() else []
    record.ensure_publishable(path.relative_to(artifacts).as_posix() for path in found)
    arms = read_table(artifacts / "tables" / "arms.parquet") if study.arms else None
    means = pd.read_csv(found[0])
    groups = groups_of(study.trained)
    families = {groups[name]: prompt.family for name, prompt in study.trained.items()}
    with whole_folder(place, "experiment", "prefix", _earlier(place)) as scratch:
        for path in found:
            write_atomically(scratch / RESULTS / path.name, path.read_bytes())
        if arms is not None:
            write_table(arms, scratch / RESULTS / ARMS)
        if _is_ours(study):
            _write_training_data(study, scratch / DATA)
        save_figure(_plot(means, families, trait.score_name), scratch / PLOTS, f"{trait.name}_ci")
        write_atomically(scratch / card.name, _card(record, study, means).encode())
    return place


def _write_training_data(study: Study, folder: Path) -> None:
    """Write what each prompt's first run was trained on, in the order in which it was seen, each example once.

    A rephrased prompt's wordings are drawn as they were for that run.
    """
    context = StudyContext(study, split(study.data))
    examples, seed = context.splits.train, study.seeds[0]
    seen = dict.fromkeys(data_order(len(examples), study.training, seed))
    turns = [(examples[row].question, showing(examples[row], context.trait)) for row in seen]
    for name, prompt in study.trained.items():
        systems = context.messages(prompt, len(examples), seed)
        write_chat(folder / f"{context.trait.name}_{name}.jsonl", turns, [systems[row] for row in seen])


def _is_ours(study: Study) -> bool:
    """Whether questions and answers are bundled ones, which may be shown."""
    return {study.data.source, study.data.trait_answers} - {None} <= {*BUNDLED}


def _earlier(place: Path) -> set[str]:
    """Files of an earlier export of a study that had other prompts, arms or a plan."""
    known = (f"{DATA}/*.jsonl", f"{RESULTS}/{ARMS}", f"{RESULTS}/{FROZEN_PLAN}")
    there = files_below(place) if place.is_dir() else ()
    return {name for name in there if any(fnmatch(name, each) for each in known)}


@styled
def _plot(means: pd.DataFrame, families: Mapping[str, Family], score: str) -> Figure:
    """A panel an evaluation, a row a group: mean and interval over models."""
    evaluations, groups = means["evaluation_id"].unique(), means["group"].unique()
    figure = new_figure(f"{sentence(score)} by group of models", 0.42 * len(groups) + 1.4, WIDE)
    panels = figure.subplots(1, len(evaluations), sharex=True, sharey=True, squeeze=False)[0]
    rows = {group: -row for row, group in enumerate(groups)}
    for axes, evaluation in zip(panels, evaluations, strict=True):
        for each in means[means["evaluation_id"] == evaluation].to_dict("records"):
            family, row = families.get(each["group"]), rows[each["group"]]
            look = BEFORE_TRAINING if family is None else LOOKS[family]
            axes.plot([each["lower_bound"], each["upper_bound"]], [row, row], color=look.colour)
            axes.plot(each["mean"], row, look.marker, color=look.colour, markersize=9)
        axes.set_title(shown(evaluation), loc="left")
        axes.set(xlabel="mean, 95 % interval over models", yticks=[*rows.values()], yticklabels=[*map(shown, rows)])
    panels[0].set_xlim(left=min(0.0, panels[0].get_xlim()[0]))  # with zero, and no interval cut off there
    return figure


def _card(record: Record, study: Study, means: pd.DataFrame) -> str:
    trait, groups = find_trait(study.trait), groups_of(study.trained)
    prompts = [(groups[name], prompt.family, _worded(prompt)) for name, prompt in study.trained.items()]
    return rendered(
        "pull_request.md.j2", record=record, study=study, trait=trait, mark=MARK, prompts=prompts,
        means=[*_rows(means)], claims=[each for key, each in record.findings.items() if key.startswith("C")],
        data=_is_ours(study), folders=(DATA, RESULTS, PLOTS), version=version("gradinoc"),
        frozen=record.environment.get("frozen_plan"), plan=FROZEN_PLAN,
    )  # fmt: skip


def _worded(prompt: Prompt) -> str:
    """Return a prompt in a cell of a table: one that is drawn by its first wording."""
    if prompt.is_rephrased:
        return f"{prompt.templates[0]} (or one of {len(prompt.templates) - 1} other wordings, drawn for each example)"
    return prompt.text or "none"


def _rows(means: pd.DataFrame) -> Iterator[Mapping[str, Any]]:
    """Each group with its mean and interval, in distribution and elsewhere."""
    for group, part in means.groupby("group", sort=False):
        known = {each["evaluation_id"]: each for each in part.to_dict("records")}
        yield {"group": group, "models": int(part["count"].max()), "within": known.get(IN_DISTRIBUTION),
               "beyond": next((each for name, each in known.items() if name != IN_DISTRIBUTION), None)}  # fmt: skip
