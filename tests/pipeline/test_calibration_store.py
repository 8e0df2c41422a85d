"""Simulated studies are kept: what was judged is not judged again, and what another command works on is left to it."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pandas as pd
import pytest

from gradinoc.pipeline import calibration
from gradinoc.pipeline.calibration import kept_studies
from gradinoc.power.calibration import studies
from gradinoc.power.calibration.cases import Case
from gradinoc.power.calibration.worlds import cases

NAMES = ("wrong_sign", "effect")


@pytest.fixture
def worlds(monkeypatch) -> Mapping[str, Case]:
    """Two worlds, in blocks of two studies."""
    monkeypatch.setattr(calibration, "BLOCK", 2)
    return {name: cases()[name] for name in NAMES}


@pytest.fixture
def judged(monkeypatch) -> list[tuple[str, range]]:
    """The blocks that are judged from now on, in their order."""
    done: list[tuple[str, range]] = []
    judge = studies.judge_block

    def watched(block):
        done.append((block[0], block[2]))
        return judge(block)

    monkeypatch.setattr(studies, "judge_block", watched)
    return done


def test_kept_studies_are_those_that_are_simulated_at_once(tmp_path, worlds):
    """Rows, columns and order, a last block that is not full included."""
    found = kept_studies(3, worlds, tmp_path, jobs=1)
    expected = studies.run_studies(3, worlds, jobs=1)
    pd.testing.assert_frame_equal(found[list(expected)], expected, check_exact=True)


def test_calibration_that_was_stopped_goes_on(tmp_path, worlds, judged):
    """The first block of every world comes first; a second command judges what is left, a third nothing."""

    def stop(done: int, total: int) -> None:
        assert total == 8
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept_studies(4, worlds, tmp_path, jobs=1, tell=stop)
    first = [(name, range(2)) for name in NAMES]
    assert judged == first
    kept_studies(4, worlds, tmp_path, jobs=1)
    assert judged == [*first, *((name, range(2, 4)) for name in NAMES)]
    kept_studies(4, worlds, tmp_path, jobs=1)
    assert len(judged) == 4


def test_two_commands_share_the_work(tmp_path, worlds, judged):
    """Each block is judged once: one that is being judged elsewhere is passed over, and waited for in the end."""
    found: list[pd.DataFrame] = []
    work = [threading.Thread(target=lambda: found.append(kept_studies(4, worlds, tmp_path, jobs=1))) for _ in range(2)]
    for each in work:
        each.start()
    for each in work:
        each.join()
    assert sorted(judged, key=str) == sorted(
        ((name, part) for name in NAMES for part in (range(2), range(2, 4))), key=str
    )
    pd.testing.assert_frame_equal(*found, check_exact=True)


def test_another_world_of_the_same_name_is_simulated_anew(tmp_path, worlds, judged):
    """What is true in it is part of the key."""
    kept_studies(2, worlds, tmp_path, jobs=1)
    kept_studies(2, {"effect": worlds["wrong_sign"]}, tmp_path, jobs=1)
    assert judged[-1] == ("effect", range(2))
    assert len(judged) == 3
