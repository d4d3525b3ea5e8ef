"""The interpolations that this project adds for its YAML files."""

from pathlib import Path

from omegaconf import OmegaConf


def register_resolvers() -> None:
    """`${study_name:...}`: a study's folder is named like its YAML file, or `single` without one."""

    def study_name(choice: str | None) -> str:
        return "single" if choice in (None, "null") else Path(str(choice)).name

    OmegaConf.register_new_resolver("study_name", study_name, replace=True)
