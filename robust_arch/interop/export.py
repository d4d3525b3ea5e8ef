"""Checkpoints out: `robust-arch export`."""

from pathlib import Path

import torch

from robust_arch.architectures import CustomArch
from robust_arch.common.files import replacing
from robust_arch.errors import InputError, invalid
from robust_arch.interop.onnx_file import probe_images, write_onnx
from robust_arch.interop.opening import open_checkpoint
from robust_arch.interop.published import published_state
from robust_arch.interop.reading import require_free
from robust_arch.interop.safetensors_file import write_safetensors

FORMATS = ("published", "safetensors", "onnx")


def export_checkpoint(
    source: Path,
    out: Path,
    form: str,
    *,
    layout: str | None = None,
    weights: str | None = None,
    force: bool = False,
    own: CustomArch | None = None,
) -> None:
    """Write the checkpoint `source` as `out`, in one of FORMATS, and check that reading it back gives the same logits.

    layout: key names of the format published, by default the usual ones of the family. weights: as in
    `open_checkpoint`. force: replaces `out`. own: the network of the user's own that the file must name.

    Raises:
        InputError: for a checkpoint, format, layout or weights that are not allowed, an `out` that exists, or logits
            that differ in a single bit; nothing is written then.
    """
    if form not in FORMATS:
        raise invalid("format", form, f"one of {', '.join(FORMATS)}, robustbench")
    if layout is not None and form != "published":
        raise invalid("layout", layout, f"nothing, as the format {form} has our key names")
    require_free(out, source, force=force)
    loaded = open_checkpoint(source, own, weights=weights)
    with replacing(out) as temporary:
        if form == "published":
            torch.save({"model_state_dict": published_state(loaded.net, loaded.spec, layout)}, temporary)
        else:
            write = write_safetensors if form == "safetensors" else write_onnx
            write(loaded, temporary)
        written = open_checkpoint(temporary, own or loaded.spec.to_dict())
        images = probe_images(loaded.card["image_shape"], 8)
        with torch.no_grad():
            same = torch.equal(loaded.net(images), written.net(images))
        if not same:
            raise InputError(f"out = {str(out)!r}: the file would not give the checkpoint's logits; it was not kept")
