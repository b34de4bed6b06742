"""The interface by which a training is recorded."""

from __future__ import annotations

from collections.abc import Mapping


class Tracker:
    """Records nothing; subclasses do."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record the metrics of one epoch, under names such as train/loss."""

    def log_pace(self, metrics: Mapping[str, float], step: int) -> None:
        """Record how fast an epoch was: what differs each time, and so belongs into no output."""

    def finish(self, summary: Mapping[str, float]) -> None:
        """Record the metrics of the epoch that was kept."""

    def close(self, failed: bool) -> None:
        """End the recording; called however the training ends."""
