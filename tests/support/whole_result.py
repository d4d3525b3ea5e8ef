"""What every result.json holds at least."""

WHOLE = {
    "best_epoch": 1,
    "last_epoch": 1,
    "best_val_robust_acc": 40.0,
    "train_seconds": 1.5,
    "selection_images": 20,
    "finished": "2026-01-01T00:00:00+00:00",
}
