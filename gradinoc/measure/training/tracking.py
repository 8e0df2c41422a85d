"""Where runs are shown while they train: TensorBoard, trackio, wandb or whatever else transformers reports to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from gradinoc.disk import disk_errors
from gradinoc.errors import StudyError, shown

NONE = "none"


@dataclass(frozen=True)
class Tracking:
    """An integration of transformers, where its logs go, and what runs are listed under; no result depends on it.

    Attributes:
        report_to: transformers' name for it.
        folder: receives what is logged on this machine: of a study, then of a run.
        project: the study's name.
        run: the run's, such as `neutral-0`.
    """

    report_to: str
    folder: Path
    project: str
    run: str = ""

    def of_run(self, condition: str, seed: int) -> Tracking:
        """The same for one run, in a folder of its own."""
        run = f"{condition}-{seed}"
        return replace(self, folder=self.folder / run, run=run)

    @contextmanager
    def places(self) -> Iterator[None]:
        """Inside the block integrations find in the environment where to log; the folder is empty when it begins.

        Otherwise logs of an interrupted run would mix with those of its repetition.
        """
        with disk_errors(self.folder, "artifacts"):
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
        places = {"TENSORBOARD_LOGGING_DIR": self.folder, "WANDB_DIR": self.folder, "WANDB_PROJECT": self.project}
        before = {name: os.environ.get(name) for name in places}
        os.environ.update({name: str(place) for name, place in places.items()})
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value
            with suppress(OSError):
                self.folder.rmdir()  # of an integration that keeps its logs elsewhere, and so left none here


def tracking(report_to: str, folder: Path, project: str) -> Tracking | None:
    """How runs are shown, their logs in `folder`; None where `report_to` is "none".

    Raises:
        StudyError: transformers has no such integration, or its package is not installed.
    """
    if report_to == NONE:
        return None
    installed = get_available_reporting_integrations()
    if report_to in installed:
        return Tracking(report_to, folder, project)
    if report_to in INTEGRATION_TO_CALLBACK:
        raise StudyError(
            f"report_to: {report_to} is not installed; expected one of {[NONE, *installed]}; install it with pip, "
            "or leave the option out"
        )
    raise StudyError(
        f"report_to: transformers has no integration {shown(report_to)}; expected one of "
        f"{[NONE, *sorted(INTEGRATION_TO_CALLBACK)]}"
    )


class ShowSteps(TrainerCallback):
    """Has Trainer log what `measured` says of the step that is done, for every integration to show."""

    def __init__(self, measured: Callable[[], dict[str, float]], log: Callable[[dict[str, float]], None]) -> None:
        self._measured, self._log = measured, log

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called by Trainer after the optimiser's step, which it has counted."""
        del args, state, control, kwargs
        self._log(self._measured())
