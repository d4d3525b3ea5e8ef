"""Checkpoints as a training leaves them."""

import pytest
import torch
from variants import VARIANTS, trained


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """From a variant's name to its checkpoint file and its network."""

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
