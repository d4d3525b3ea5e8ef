"""Configurations as Hydra composes them."""

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict, read_write

from robust_arch.common.paths import conf_dir
from robust_arch.configuration.resolvers import register_resolvers


def configuration(folder, *overrides, config="train"):
    """What Hydra hands to a job that is given these overrides; results go below `folder`."""
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(config, [f"results_dir={folder}/results", *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with read_write(cfg), open_dict(cfg):
        del cfg["hydra"]
    return cfg
