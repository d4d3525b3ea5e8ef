"""`python -m robust_arch.evaluate checkpoint=<path>`: evaluate any checkpoint, this project's or a published one."""

import logging
import sys

from omegaconf import DictConfig

from robust_arch.common.process import exit_on_sigterm, set_up_logging
from robust_arch.configuration.commands import run_job
from robust_arch.configuration.resolvers import register_resolvers
from robust_arch.errors import InputError
from robust_arch.execution.evaluate_checkpoint import evaluate

log = logging.getLogger("robust_arch.evaluate")  # under -m this module is called __main__


def job(cfg: DictConfig) -> None:
    """The Hydra job."""
    set_up_logging()
    try:
        record = evaluate(cfg)
    # OSError: a full disk or a folder that is not writable; FloatingPointError: logits or gradients that are not finite
    except (InputError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    log.info("recorded in %s", record.json_path)
    for warning in record.content["warnings"]:
        log.warning("%s", warning)
    if record.invalid:
        sys.exit(f"error: {record.summary()} (rerun=true tries again)")
    log.info("%s", record.summary())


def main() -> None:
    """The command."""
    register_resolvers()
    set_up_logging()
    exit_on_sigterm()
    run_job(job, "evaluate")


if __name__ == "__main__":
    main()
