"""Learning curves as tables that DVC plots, written by DVCLive."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from titles.data.contract import atomic_folder
from titles.tracking.tracker import Tracker


class DvcliveTracker(Tracker):
    """Writes one table per metric below folder/plots/metrics; all tables hold the same epochs.

    Raises:
        ValueError: git has no commit yet.
    """

    def __init__(self, folder: Path) -> None:
        from dvclive.live import Live
        from scmrepo.exceptions import SCMError

        self._folder = folder
        # DVCLive appends to the tables one by one. A killed training may leave this folder behind.
        self._growing = folder.with_name(f"{folder.name}.growing.partial")
        # The stage declares plots and metrics: DVCLive must write neither dvc.yaml nor an experiment.
        try:
            self._live = Live(str(self._growing), dvcyaml=None, save_dvc_exp=False, report=None)
        except SCMError as error:
            raise ValueError(
                f"the git repository has no commit that curves could belong to ({error}): "
                "`git add . && git commit` first"
            ) from None

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._live.step = step
        for name, value in metrics.items():
            self._live.log_metric(name, value)
        with atomic_folder(self._folder) as folder:
            shutil.copytree(self._growing / "plots", folder / "plots")

    def close(self, failed: bool) -> None:
        try:
            self._live.end()  # type: ignore[no-untyped-call]
        finally:
            shutil.rmtree(self._growing, ignore_errors=True)
