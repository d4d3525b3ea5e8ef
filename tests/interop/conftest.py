"""Checkpoints as a training leaves them, and their exports."""

import functools

import pytest
import torch
from variants import VARIANTS, trained

from robust_arch.interop import export_checkpoint


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """From a variant's name to its checkpoint file and its network, each made once."""

    @functools.cache
    def save(name):
        spec, num_classes, image_shape, normalisation, config = VARIANTS[name]
        net = trained(spec, num_classes, image_shape, normalisation)
        card = {"schema": 1, "arch": spec.to_dict(), "num_classes": num_classes, "image_shape": list(image_shape)}
        card |= {} if config is None else {"config": config, "run_id": "0123456789ab"}
        path = tmp_path_factory.mktemp("checkpoint") / "best.ckpt"
        state = {f"net.{key}": value for key, value in net.state_dict().items()}
        torch.save({"state_dict": state, "card": card, "epoch": 1}, path)
        return path, net

    return save


@pytest.fixture(scope="session")
def exported(saved, tmp_path_factory):
    """From a form, or `own`, and a variant's name to the file, each made once."""

    @functools.cache
    def export(form, name="wide_resnet"):
        if form == "own":
            return saved(name)[0]
        path = tmp_path_factory.mktemp("exported") / form
        export_checkpoint(saved(name)[0], path, form)
        return path

    return export
