"""What wandb holds of a run and a study."""
