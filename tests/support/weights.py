"""The weights that a run left, and whether they are those of another."""

import torch


def weights(run, which="last"):
    """The state dict in a checkpoint of a run, or of a run's folder."""
    folder = getattr(run, "folder", run)
    return torch.load(folder.checkpoint(which), weights_only=True)["state_dict"]


def same_weights(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
