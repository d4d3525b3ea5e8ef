"""Checkpoint files changed by other means than this project's, and what is dangerous to load."""

import json
import os

import onnx
import torch
from safetensors.torch import load_file, save_file

CARD_FORMS = ["own", "safetensors", "onnx"]


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def write_with_card(form, source, out, card, change_weights=lambda weights: None):
    """The file `source` of a form with another card; card: plain data, or the text of the metadata."""
    if form == "own":
        torch.save({**torch.load(source, weights_only=True), "card": card}, out)
        return
    metadata = {"robust_arch": card if isinstance(card, str) else json.dumps(card)}
    if form == "safetensors":
        weights = load_file(source)
        change_weights(weights)
        save_file(weights, out, metadata=metadata)
    else:
        model = onnx.load(source)
        onnx.helper.set_model_props(model, metadata)
        out.write_bytes(model.SerializeToString())
