"""`python -m robust_arch.train`: one run; with `-m study=<yaml>`, a study.

Modules that take seconds to import are imported after Hydra has accepted the command line.
"""

import logging
import sys

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from robust_arch.common.process import exit_on_sigterm, set_up_logging
from robust_arch.configuration.commands import FLAGS, require_one_study, run_job
from robust_arch.configuration.resolvers import register_resolvers
from robust_arch.errors import InputError, RunNotCompletedError

log = logging.getLogger("robust_arch.train")  # under -m this module is called __main__


def train(cfg: DictConfig) -> tuple[str, tuple[float, ...] | None]:
    """Train, select, evaluate and record one run; returns its state, and its values of the study's objectives, if any.

    Raises:
        InputError: for a value that is not allowed, before anything is written.
    """
    from robust_arch.execution.execute import execute
    from robust_arch.study.optimiser import execute_or_wait, load_run, objective_values, read_objectives

    run, objectives = load_run(cfg), read_objectives(cfg)
    state = execute_or_wait(run) if objectives else execute(run)
    if state != "completed":
        return state, None
    log.info("recorded in %s", run.folder.path)
    return state, objective_values(run, objectives) if objectives else None


def forget_run() -> None:
    """Release memory and images, so that the next run in this process does not inherit them."""
    from robust_arch.engine import release_memory
    from robust_arch.evaluation import select_examples

    select_examples.cache_clear()
    release_memory()


def job(cfg: DictConfig) -> tuple[float, ...] | None:
    """One Hydra job, which returns the objectives; a failure is its exit status, or in a sweep its exception."""
    set_up_logging()
    exit_on_sigterm()
    in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        state, objectives = train(cfg)
    except (InputError, OSError) as error:  # OSError: a disk is full, or a folder cannot be written
        if in_sweep:
            raise
        sys.exit(f"error: {error}")
    finally:
        forget_run()
    if state != "completed":
        if in_sweep:
            raise RunNotCompletedError(state)
        sys.exit(1)
    return objectives


def main() -> None:
    """The command."""
    register_resolvers()
    set_up_logging()
    exit_on_sigterm()
    sys.argv = [FLAGS.get(word, word) for word in sys.argv]
    try:
        require_one_study(sys.argv[1:])
    except InputError as error:
        sys.exit(f"error: {error}")
    run_job(job, "train")


if __name__ == "__main__":
    main()
