"""The interpolations that this project adds for its YAML files."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from robust_arch.common.paths import conf_dir
from robust_arch.configuration.key_comments import key_comments


def register_resolvers() -> None:
    """Register them all.

    `${study_name:...}`: a study's folder is named like its YAML file, or `single` without one. `${key_comments:}`: what
    the keys mean, for the template of `--help`.
    """

    def study_name(choice: str | None) -> str:
        return "single" if choice in (None, "null") else Path(str(choice)).name

    def comments(*, _root_: DictConfig) -> str:
        text = key_comments(conf_dir(), _root_.hydra.job.config_name, _root_.hydra.runtime.choices)
        return text.replace("$", "$$")  # the help is a string.Template

    OmegaConf.register_new_resolver("study_name", study_name, replace=True)
    OmegaConf.register_new_resolver("key_comments", comments, replace=True)
