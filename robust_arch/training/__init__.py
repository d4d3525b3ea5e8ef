"""Adversarial training: the LightningModule, its data, recipe and schedule, and `fit`."""
