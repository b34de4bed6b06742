"""Learning curves as a table that DVC plots, written by DVCLive."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from titles.data.files import atomic_file
from titles.data.scratch import scratch
from titles.tracking.tracker import Tracker


class DvcliveTracker(Tracker):
    """Writes one JSON record per epoch into a file, as epoch, train_loss, learning_rate and so on.

    The file is replaced as a whole after each epoch.

    Raises:
        ValueError: git has no commit yet.
    """

    def __init__(self, file: Path) -> None:
        from dvclive.live import Live
        from scmrepo.exceptions import SCMError

        self._file = file
        self._records: list[dict[str, float]] = []
        self._stack = ExitStack()
        file.parent.mkdir(parents=True, exist_ok=True)
        self._growing = self._stack.enter_context(scratch(file))  # where DVCLive writes
        # The stage declares plots and metrics: DVCLive must write neither dvc.yaml nor an experiment.
        try:
            self._live = Live(str(self._growing), dvcyaml=None, save_dvc_exp=False, report=None)
        except SCMError as error:
            self._stack.close()
            raise ValueError(
                f"the git repository has no commit that curves could belong to ({error}): "
                "`git add . && git commit` first"
            ) from None

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        record = {name.replace("/", "_"): value for name, value in metrics.items()}
        self._records.append({"epoch": step} | record)
        self._live.step = step
        self._live.log_plot("curves", self._records, x="epoch", y=list(record))
        with atomic_file(self._file) as partial:
            shutil.copyfile(self._growing / "plots/custom/curves.json", partial)

    def close(self, failed: bool) -> None:
        try:
            self._live.end()  # type: ignore[no-untyped-call]
        finally:
            self._stack.close()
