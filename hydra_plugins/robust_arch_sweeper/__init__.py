"""Hydra finds its plugins in this namespace; the study itself is in robust_arch.study.sweep."""
