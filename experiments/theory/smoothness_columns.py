"""A network's smoothness as columns of a table: from what `stage_smoothness` returns and evaluation records keep."""

from collections.abc import Mapping
from typing import Any

FORMS = ("lipschitz", "lipschitz_kl", "lipschitz_l2")


def smoothness_columns(smoothness: Mapping[str, Any]) -> dict[str, float | None]:
    """Bound and mean measured change of each part alone, the network's bound, and the norms that enter the last stage.

    bound_<part>, alone_<part>: of "stem", "stage_1", ..., "head". norm_<layer>: of the last stage's first block.
    """
    columns: dict[str, float | None] = {"smoothness_n": smoothness["n"]}
    for stage in smoothness["stages"]:
        part = "head" if stage["name"] == "logits" else stage["name"].replace(" ", "_")
        columns |= {f"bound_{part}": stage["bound"], f"alone_{part}": stage["alone"]}
    columns["bound_network"] = smoothness["bounds"]["network"]
    return columns | _entering_norms(smoothness)


def _entering_norms(smoothness: Mapping[str, Any]) -> dict[str, float | None]:
    # the parts are the stem, the stages and the logits; layers are named as in the state dict
    first_block = f"network.stages.{len(smoothness['stages']) - 3}.0."
    norms = {layer["name"]: layer["norm"] for layer in smoothness["bounds"]["layers"]}
    return {f"norm_{layer}": norms.get(first_block + layer) for layer in ("bn1", "conv1", "bn2", "conv2", "shortcut")}
