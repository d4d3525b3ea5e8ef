"""What this project adds to the interpolations that its YAML files can use."""

from pathlib import Path

from omegaconf import OmegaConf


def register_resolvers() -> None:
    """`${study_name:...}`: a study's folder is named like its YAML, and `single` without one."""
    OmegaConf.register_new_resolver("study_name", _study_name, replace=True)


def _study_name(choice: str | None) -> str:
    return "single" if choice in (None, "null") else Path(str(choice)).name
