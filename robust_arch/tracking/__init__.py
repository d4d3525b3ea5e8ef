"""Runs and studies on wandb."""
