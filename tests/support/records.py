"""A run as records describe it, and what every result.json holds at least."""

from robust_arch.runs.folder import RunFacts

WHOLE = {
    "best_epoch": 1,
    "last_epoch": 1,
    "best_val_robust_acc": 40.0,
    "train_seconds": 1.5,
    "selection_images": 20,
    "finished": "2026-01-01T00:00:00+00:00",
}

FACTS = RunFacts(
    run_id="0123456789ab",
    study="demo",
    arch="wide_resnet-d1-1-1-w16-32-64",
    family="wide_resnet",
    depths="1-1-1",
    widths="16-32-64",
    params=77_000,
    macs=2_000_000,
    objective="sat",
    recipe="digits",
    train_threat="linf-0.2",
    data="digits",
    seed=0,
    epochs=30,
)
