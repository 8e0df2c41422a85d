"""A plan that was frozen before its study was run: what it fixed, and in which lines a study differs from it.

The file is JSON to be read and published: the study with its rules, every prompt with its text and family, the runs,
digests of questions and model, versions of the code that measures and decides and of the packages, and the date. It
holds its own digest, so that a changed file is not taken for the frozen one; whoever writes a new digest into it needs
the old one to be nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gradinoc.claims.rules.verdict import Judgement
from gradinoc.data.splits import split
from gradinoc.disk import write_atomically
from gradinoc.errors import StudyError, printable, reason, shown
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.steps.plan import LIBRARIES, STAGES, UNCOUNTED, entries, plan
from gradinoc.pipeline.storage.contents import MANIFEST
from gradinoc.pipeline.storage.provenance import code_version, library_versions
from gradinoc.pipeline.storage.store import Store
from gradinoc.study.description import DESCRIBES_NOTHING, Study
from gradinoc.study.loading import PLAN_KIND
from gradinoc.study.rules import VERSION

# Keys of the file: its digest, what was there when it was written, versions of code.
DIGEST, FROZEN, CODE = "sha256", "frozen", "code"
ASIDE = ("kind", FROZEN, DIGEST)  # of the file itself
TRAINED = ("training", "drift", "checkpoints", "matrix")  # stages of runs
JUDGED = "gradinoc.claims.rules.verdict"


@dataclass(frozen=True)
class Registration:
    """What a study has to do with the plan that was frozen before it.

    Attributes:
        file: the plan's file.
        date: when it was frozen, UTC.
        digest: SHA-256 of its content.
        note: what the store held then.
        differences: in which lines the study differs from it, as `differences` has them.
    """

    file: str
    date: str
    digest: str
    note: str
    differences: tuple[str, ...]

    @property
    def matches(self) -> bool:
        """Whether the study is the one that was planned."""
        return not self.differences

    @property
    def lines(self) -> list[str]:
        """The same in sentences; where it differs one for the plan, and one for each difference."""
        plan = f"the plan frozen on {self.date} (SHA-256 {self.digest[:12]})"
        if self.matches:
            return [f"This study matches {plan}. {self.note}"]
        count = len(self.differences)
        return [
            f"This study is not that of {plan}; {count} {'line differs' if count == 1 else 'lines differ'}",
            *self.differences,
        ]


def described(study: Study) -> dict[str, Any]:
    """What a plan fixes of `study`: see the module.

    Raises:
        GradinocError: questions or model are not to be had.
    """
    context = StudyContext(study, split(study.data))
    known = context.evaluations | context.prompts
    return {
        "rules_version": VERSION,
        "study": study.model_dump(mode="json", exclude=set(DESCRIBES_NOTHING)),
        "prompts": {
            key: {
                "family": str(prompt.family),
                "text": prompt.text if not prompt.templates else list(prompt.templates),
                "measured": key in study.measured,
                "trained": key in study.trained,
                "evaluated": key in context.evaluations,
            }
            for key, prompt in known.items()
        },
        "runs": [f"{condition}, seed {seed}" for condition, seed in (*study.runs, *study.arm_runs)],
        "trait": {
            "name": context.trait.name,
            "promote": context.trait.promote_system,
            "suppress": context.trait.suppress_system,
            "identity": context.trait.identity,
        },
        "digests": {"questions": context.splits.digest, "model": context.fingerprint},
        CODE: {
            "decides": code_version(JUDGED, without=UNCOUNTED),
            **{stage: code_version(module, without=UNCOUNTED) for stage, module in STAGES.items()},
        },
        "packages": library_versions("gradinoc", "numpy", "scipy", "statsmodels", *LIBRARIES),
    }


def freeze(study: Study, store: Store, path: Path) -> str:
    """Write the plan of `study` to `path`, and return its digest; nothing of it may have been trained yet.

    What the store holds of it already (measurements of the frozen model), and runs of the same model on the same
    questions under other settings or code, are named in the file.

    Raises:
        StudyError: there is such a file, or the store holds results of runs of the study.
        GradinocError: questions or model are not to be had, or the disk refuses.
    """
    if path.exists():
        raise StudyError(f"--freeze {path}: is there already; a frozen plan is not written over, name another file")
    context = StudyContext(study, split(study.data))
    steps = plan(context)
    found = {key: entry.complete() for key, entry in entries(context, steps, store).items()}
    done = [key for key, complete in found.items() if complete]
    trained = [key for key in done if key.seed is not None and key.stage in TRAINED]
    if trained:
        raise StudyError(
            f"--freeze {path}: the store {store.root} holds {len(trained)} results of this study's runs already "
            f"({steps[trained[0]].label!r} first); a plan is frozen before; with --store name one without them"
        )
    content = {
        "kind": PLAN_KIND,
        FROZEN: {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "measured_before": [steps[key].label for key in done],
            "other_runs_of_this_model_and_these_questions": _other_runs(store, context),
        },
        **described(study),
    }
    digest = _digest(content)
    text = json.dumps({**content, DIGEST: digest}, indent=1, ensure_ascii=False)
    write_atomically(path, f"{text}\n".encode(), "freeze")
    return digest


def _other_runs(store: Store, context: StudyContext) -> int:
    """How many runs the store holds of this model on these questions, whatever their settings and code."""
    wanted, count = {"model": context.fingerprint, "data": context.splits.digest}, 0
    for manifest in sorted((store.root / TRAINED[0]).glob(f"*/{MANIFEST}")):
        try:
            inputs = json.loads(manifest.read_bytes())["inputs"]
        except (OSError, ValueError, LookupError, TypeError):
            continue  # damaged: no result of any study
        count += all(inputs.get(name) == value for name, value in wanted.items())
    return count


def load_frozen(path: Path) -> dict[str, Any]:
    """The content of the file of a frozen plan.

    Raises:
        StudyError: no such file, none of a frozen plan, or one that was changed after it was written.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"--frozen {path}: cannot be read ({reason(error)}); name the file of --freeze") from error
    if not isinstance(content, dict) or content.get("kind") != PLAN_KIND:
        raise StudyError(f"--frozen {path}: no frozen plan; expected a file that `gradinoc plan STUDY --freeze` wrote")
    written = content.pop(DIGEST, None)
    if written != _digest(content):
        raise StudyError(
            f"--frozen {path}: was changed after it was written: its digest is {shown(written)}, that of its content "
            f"{_digest(content)!r}; take the file that was frozen"
        )
    return {**content, DIGEST: written}


def differences(frozen: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In which lines two plans differ: `rules.share: 0.25 in the frozen plan, 0.2 now`.

    `frozen` is the content of a file, `now` what `described` says of a study. Keys are those of study files.
    """
    before, after = (
        {key: value for key, value in _flat(each) if key.partition(".")[0] not in ASIDE and key != "study.name"}
        for each in (frozen, now)
    )
    lines = _of_code(before, after)
    for key in dict.fromkeys([*before, *after]):
        name = printable(key.removeprefix("study."))
        if key not in after:
            lines.append(f"{name}: {shown(before[key])} in the frozen plan, not there now")
        elif key not in before:
            lines.append(f"{name}: not in the frozen plan, {shown(after[key])} now")
        elif before[key] != after[key]:
            lines.append(f"{name}: {shown(before[key])} in the frozen plan, {shown(after[key])} now")
    return lines


def _of_code(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What was computed or judged by other code, in one line, and taken out of both: digests tell a reader nothing."""
    code = [key for key in dict.fromkeys([*before, *after]) if key.partition(".")[0] == CODE]
    changed = [key.partition(".")[2] for key in code if before.pop(key, None) != after.pop(key, None)]
    return [f"{CODE}: {', '.join(changed)} not as when the plan was frozen"] if changed else []


def registration(path: Path, study: Study) -> Registration:
    """What `study` has to do with the plan frozen in `path`, for its report.

    Raises:
        GradinocError: as `load_frozen` and `described`.
    """
    frozen = load_frozen(path)
    then = frozen[FROZEN]
    measured, other = then["measured_before"], then["other_runs_of_this_model_and_these_questions"]
    note = "Nothing of it was in the store when it was frozen"
    if measured:
        note = f"Of it {len(measured)} steps on the frozen model were in the store when it was frozen, and no run"
    if other:
        note += f"; of this model and these questions {other} runs with other settings or code were"
    apart = differences(frozen, described(study))
    return Registration(path.name, then["date"], frozen[DIGEST], f"{note}.", tuple(apart))


def beside_plan(path: Path, study: Study, judgement: Judgement, surroundings: dict[str, Any]) -> Judgement:
    """Return `judgement` with warnings of the lines in which `study` differs from the plan frozen in `path`.

    `surroundings`, which go into the report, get the `Registration` as "frozen_plan", and where it matches a note.
    """
    found = registration(path, study)
    surroundings["frozen_plan"] = {**asdict(found), "matches": found.matches}
    if found.matches:
        surroundings["notes"] = [*surroundings.get("notes", ()), *found.lines]
        return judgement
    return replace(judgement, warnings=(*judgement.warnings, *found.lines))


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key -> value of nested tables; lists are values."""
    if not isinstance(value, Mapping) or not value:
        yield key, value
        return
    for name, each in value.items():
        yield from _flat(each, f"{key}.{name}" if key else str(name))


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of the content as canonical JSON."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
