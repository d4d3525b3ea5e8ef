"""Lightning's loggers for one run; their failures never stop the run."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from robust_arch.tracking.tracker import Tracker

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

log = logging.getLogger(__name__)


class LoggerTracker(Tracker):
    """One Lightning logger, which gets the configuration, the rows of metrics.csv and the final numbers.

    After a resume it gets new rows only: those of an earlier attempt are where that attempt logged them.
    """

    def __init__(self, name: str, logger: "Logger", config: Mapping[str, Any]) -> None:
        self.name, self.config = name, config
        self._logger: Logger | None = logger
        self._step = 0

    def __getstate__(self) -> dict[str, Any]:
        # worker processes of a multi-device run get a closed tracker: the parent logs the rows afterwards
        return {**self.__dict__, "_logger": None}

    def start(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Log the configuration."""
        self._step = int(rows[-1]["step"]) if rows else 0
        self._guarded("start", lambda logger: logger.log_hyperparams(dict(self.config)))

    def log(self, row: Mapping[str, float]) -> None:
        """Log one epoch at the trainer's step."""
        self._step = int(row["step"])
        numbers = {key: value for key, value in row.items() if key not in ("step", "time")}
        self._guarded("log", lambda logger: logger.log_metrics(numbers, step=self._step))

    def finish(self, summary: Mapping[str, Any], *, failed: bool) -> None:
        """Log the final numbers at the last step and close."""
        numbers = {key: value for key, value in summary.items() if isinstance(value, int | float)}
        self._guarded("summary", lambda logger: logger.log_metrics(numbers, step=self._step))
        self._guarded("finish", lambda logger: logger.finalize("failed" if failed else "success"))

    def _guarded(self, what: str, action: Callable[["Logger"], Any]) -> None:
        if self._logger is None:
            return
        try:
            action(self._logger)
        except Exception as error:  # tracking must never fail a run
            self.problem = f"logger.{self.name} {what} failed: {type(error).__name__}: {error}"
            log.warning("%s; the run continues without it", self.problem)
            self._logger = None
