"""Checkpoints in: `robust-arch import`."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robust_arch import __version__
from robust_arch.architectures import ArchSpec, named_spec
from robust_arch.architectures.family import DEFAULT_FAMILY
from robust_arch.common.files import replacing
from robust_arch.errors import invalid
from robust_arch.interop.checkpoint import LoadedCheckpoint, load_checkpoint, save_checkpoint
from robust_arch.interop.normalisation import Normalisation, Request, Statistics
from robust_arch.interop.published import read_published
from robust_arch.interop.reading import read_weights_only, require_file, require_free


def read_architecture(
    preset: str | None, depths: str | None, widths: str | None, fields: Mapping[str, Any]
) -> ArchSpec:
    """The architecture given on a command line: a preset or another name, or depths and widths like "5,5,5".

    fields: the other fields of the architecture, used with depths and widths only.

    Raises:
        InputError: unless exactly one of the two is given, and is legal.
    """
    if (preset is None) == (depths is None and widths is None):
        raise invalid("arch", preset, "the architecture: either --arch <preset>, or --depths and --widths")
    if preset is not None:
        return named_spec(preset)
    stages = {}
    for option, text in (("depths", depths), ("widths", widths)):
        try:
            stages[option] = tuple(int(part) for part in (text or "").split(","))
        except ValueError:
            raise invalid(f"--{option}", text, "integers, one per stage, like 5,5,5") from None
    return ArchSpec(**{"family": DEFAULT_FAMILY, **fields, **stages})


def read_numbers(option: str, text: str | None) -> list[float] | None:
    """The numbers given on a command line, like "0.49,0.48,0.45", or None."""
    try:
        return None if text is None else [float(part) for part in text.strip("[] ").split(",")]
    except ValueError:
        raise invalid(option, text, "one number per channel, like 0.49,0.48,0.45") from None


def import_published(
    source: Path,
    out: Path,
    spec: ArchSpec,
    *,
    image_size: int = 32,
    force: bool = False,
    request: Request | None = None,
    statistics: Statistics | None = None,
) -> tuple[str, Normalisation]:
    """Write a published checkpoint as one of this project, and check that it can be read back.

    spec: the architecture; every key and shape must match it. image_size: side in pixels of the images that the
    network is for. force: replaces `out`. request: the normalisation, if it is not in the file. statistics: returns
    mean and std of the training images, for the request `dataset`.

    Returns the layout of the file's key names, and the normalisation that is written with the network.

    Raises:
        InputError: for a file that is no published checkpoint of that architecture, a request that contradicts the
            file's own normalisation, or an `out` that exists; nothing is written then.
    """
    if image_size < 1:
        raise invalid("image-size", image_size, "at least 1")
    require_file(source)
    require_free(out, source, force=force)
    content = read_weights_only(source)
    if "card" in content:
        raise invalid("file", str(source), "a published checkpoint; this is one of this project already")
    published, layout = read_published(content, spec)
    normalisation = published.normalised(request or Request(), statistics)
    card = {
        "schema": 1,
        "package_version": __version__,
        "arch": spec.to_dict(),
        "num_classes": published.net.network.get_parameter("fc.weight").shape[0],
        "image_shape": [len(normalisation.mean), image_size, image_size],
        "source": {
            "file": source.name,
            "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
            "layout": layout,
            "normalisation": str(normalisation),
        },
    }
    with replacing(out) as temporary:
        save_checkpoint(LoadedCheckpoint(normalisation.applied_to(published.net), spec, card), temporary)
        load_checkpoint(temporary, expected=spec)
    return layout, normalisation
