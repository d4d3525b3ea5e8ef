"""One run from start to end: train, select, evaluate, record."""
