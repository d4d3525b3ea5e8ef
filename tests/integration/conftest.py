"""Whole runs: composed from the real YAML files, on real digits, cut short."""

import pytest
from commands import SMALL, command
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict, read_write

from robust_arch.paths import conf_dir
from robust_arch.resolvers import register_resolvers


@pytest.fixture
def composed(tmp_path):
    """A function from a config's name and overrides to what Hydra hands to a job; results go to tmp_path."""

    def make(*overrides, config="train", small=True):
        register_resolvers()
        GlobalHydra.instance().clear()
        chosen = [f"results_dir={tmp_path}/results", *(SMALL if small else ()), *overrides]
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose(config, overrides=chosen, return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        with read_write(cfg), open_dict(cfg):
            del cfg["hydra"]
        return cfg

    return make


@pytest.fixture
def train_command(tmp_path):
    """A function that runs the training command with small settings in tmp_path."""
    return lambda *overrides: command("robust_arch.train", *SMALL, *overrides, cwd=tmp_path)
