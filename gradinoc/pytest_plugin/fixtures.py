"""Fixtures of tests about a study: its tables, computed when first asked for; its findings; its artifacts folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gradinoc.pytest_plugin.session import FINDING, SESSION, StudySession, option

if TYPE_CHECKING:
    from gradinoc.claims.evidence.tables import Evidence
    from gradinoc.claims.rules.finding import Finding
    from gradinoc.claims.rules.verdict import Judgement
    from gradinoc.pipeline.run import Pipeline
    from gradinoc.study.description import Study
    from gradinoc.study.rules import Rules

EFFECT_FIELDS = ("estimate", "low", "high", "level", "p", "against", "n", "unit", "method")


def _session(config: pytest.Config) -> StudySession:
    session = config.stash.get(SESSION, None)
    if session is None:
        pytest.skip("no study is asked for; give one: pytest --study tiny")
    return session


@pytest.fixture(scope="session")
def study(pytestconfig: pytest.Config) -> Study:
    """The study named on the command line or in the configuration."""
    return _session(pytestconfig).study


@pytest.fixture(scope="session")
def rules(study: Study) -> Rules:
    """The decision rules of the study."""
    return study.rules


@pytest.fixture(scope="session")
def pipeline(study: Study, pytestconfig: pytest.Config) -> Pipeline:
    """The study's steps; under xdist each worker has them, on the same store."""
    return _session(pytestconfig).pipeline


@pytest.fixture(scope="session")
def evidence(pipeline: Pipeline) -> Evidence:
    """Every table of the study."""
    return pipeline.evidence()


@pytest.fixture(scope="session")
def gates(evidence: Evidence, rules: Rules) -> Sequence[Finding]:
    """Every gate, on which the claims rest."""
    from gradinoc.claims.gates import gates_of

    return gates_of(evidence, rules)


@pytest.fixture(scope="session")
def judgement(evidence: Evidence, rules: Rules) -> Judgement:
    """Every gate and claim, and the verdict."""
    from gradinoc.claims.rules.verdict import judge

    return judge(evidence, rules)


@pytest.fixture(scope="session")
def judged() -> dict[str, Finding]:
    """The findings of this session's marked tests so far, by key."""
    return {}


@pytest.fixture
def finding(
    request: pytest.FixtureRequest, pipeline: Pipeline, rules: Rules, artifacts: Artifacts, judged: dict[str, Finding]
) -> Finding:
    """The finding of the gate or claim that the test is marked with: `@pytest.mark.claim("C1")`.

    Judged once, on the tables of the marker's `stages` (all if none is named); its figures, its row of the table and
    its statement are written before the test asserts, which an undecided finding skips.
    """
    from gradinoc.claims.gates import gates_of
    from gradinoc.claims.rules.verdict import RULES_OF

    mark = request.node.get_closest_marker("claim")
    (key,), stages = mark.args, mark.kwargs.get("stages", ())
    if key not in judged:
        claim, evidence = RULES_OF[key], pipeline.evidence(*stages)
        if not claim.ran(evidence):
            pytest.skip(f"{key} not run in study {pipeline.study.name}: it measures no {', '.join(claim.needs)}")
        gates = gates_of(evidence, rules, claim.rests_on) if claim.rests_on else ()
        judged[key] = claim.judge(evidence, rules, gates)
        artifacts.write(judged[key], evidence)
    artifacts.note(judged[key])
    return judged[key]


@pytest.fixture
def artifacts(request: pytest.FixtureRequest, study: Study, pytestconfig: pytest.Config) -> Artifacts:
    """The study's artifacts folder, for this test's findings."""
    from gradinoc.disk import disk_errors

    folder = _session(pytestconfig).artifacts
    with disk_errors(folder, "artifacts"):
        folder.mkdir(parents=True, exist_ok=True)
    return Artifacts(request, folder)


class Artifacts:
    """Writes a test's findings to the study's artifacts folder."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self._request, self.folder = request, folder

    def write(self, finding: Finding, evidence: Evidence) -> None:
        """Write figures, table row and statement of a gate or claim."""
        from filelock import FileLock

        from gradinoc.report import write_finding
        from gradinoc.report.figures import FIGURES
        from gradinoc.report.figures.style import save_figure

        rules = _session(self._request.config).study.rules
        for name, figure in FIGURES.items():
            if finding.key in figure.shows:
                save_figure(figure.draw(evidence, rules).figure, self.folder / "figures", name)
        with FileLock(self.folder / ".findings.lock"):
            write_finding(finding, self.folder)

    def note(self, finding: Finding) -> None:
        """Give the test the finding as properties, for a JUnit file (`--junit-xml`); skip it if that is undecided.

        With `--undecided fail` the test goes on.
        """
        from gradinoc.claims.rules.finding import Status

        self._request.node.user_properties += finding_properties(finding)
        self._skip_if(finding.status is Status.UNDECIDED, f"{finding.key} undecided: {finding.reason}")

    def report(self, study: Study, evidence: Evidence, judgement: Judgement) -> None:
        """Write the whole report, what other tools load, and the summary; then skip the test if all is undecided."""
        from filelock import FileLock

        from gradinoc.api import write_artifacts
        from gradinoc.claims.rules.verdict import Verdict

        unsettled = (Verdict.UNDECIDED, Verdict.CONSISTENT)  # consistent: whether v is the cause was not tested
        refuted = judgement.verdict not in (Verdict.SUPPORTED, *unsettled)
        self._request.node.user_properties += [
            (FINDING, "refuted" if refuted else str(judgement.verdict)),
            ("study", study.name),
            ("verdict", str(judgement.verdict)),
            ("statement", judgement.sentence),
            *published_properties(study),
            *((f"warning.{place}", warning) for place, warning in enumerate(judgement.warnings, start=1)),
        ]
        session = _session(self._request.config)
        with FileLock(self.folder / ".findings.lock"):
            write_artifacts(session.pipeline, evidence, judgement, self.folder, session.command)
        self._skip_if(judgement.verdict in unsettled, judgement.sentence)

    def _skip_if(self, undecided: bool, reason: str) -> None:
        if undecided and option(self._request.config, "undecided") == "skip":
            pytest.skip(reason)


def published_properties(study: Study) -> list[tuple[str, str]]:
    """Return the verdict that version 1 of the rules gave of a ready study, as a property; none where there is none."""
    first = study.published.first_verdict
    return [("verdict.rules-1", first)] if first else []


def finding_properties(finding: Finding) -> list[tuple[str, str]]:
    """Return status, statement, reason and every effect of a gate or claim as properties for a JUnit file.

    Effects are counted from 1 in the order of the finding; floats are in full, and missing numbers are left out.
    They are text, as a JUnit file is, and as xdist carries from worker to controller.
    """
    properties = [(FINDING, finding.status), ("claim", finding.key), ("statement", finding.statement)]
    properties.append(("reason", finding.reason))
    for place, effect in enumerate(finding.effects, start=1):
        values = {"name": effect.name, **{field: getattr(effect, field) for field in EFFECT_FIELDS}}
        properties += [(f"effect.{place}.{field}", value) for field, value in values.items() if value == value]
    return [(name, str(value)) for name, value in properties]
