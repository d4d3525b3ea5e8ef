"""One run from start to end: training, selection, evaluation and record."""
