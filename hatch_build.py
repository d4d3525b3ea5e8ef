"""What the package index shows beyond pyproject.toml: addresses of the repository, and the README with them."""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

REPOSITORY = "ROBUST_ARCH_REPOSITORY"
"""The environment variable with the repository's address, like https://github.com/OWNER/NAME; a release sets it."""
PAPER = "https://arxiv.org/abs/2110.03825"
_IMAGE = re.compile(r"(!\[[^\]]*\]\()(?!\w+:)([^)]+)\)")
_LINK = re.compile(r"((?<!!)\[[^\]]*\]\()(?!\w+:|#)([^)]+)\)")


class CustomMetadataHook(MetadataHookInterface):
    """Fills in `readme` and `urls`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Without the address, links stay relative and the paper is the only URL."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        address = os.environ.get(REPOSITORY, "").rstrip("/")
        metadata["urls"] = {"Paper": PAPER}
        if address:
            version = f"v{metadata['version']}"
            text = absolute(text, address, version)
            metadata["urls"] |= {
                "Repository": address,
                "Documentation": f"{address}/tree/{version}/docs",
                "Changelog": f"{address}/blob/{version}/CHANGELOG.md",
                "Issues": f"{address}/issues",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def absolute(text: str, address: str, version: str) -> str:
    """The Markdown with its links to files of the repository made absolute, at the tag `version`."""
    text = _IMAGE.sub(rf"\g<1>{address}/raw/{version}/\g<2>)", text)
    return _LINK.sub(rf"\g<1>{address}/blob/{version}/\g<2>)", text)
