"""Architectures inside a budget that `analysis.surrogate` predicts to be most robust, and the study that tests them."""
