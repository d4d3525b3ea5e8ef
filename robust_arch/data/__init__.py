"""Data sets as tensors in memory, their splits, batches and augmentation."""

from robust_arch.data.dataset import Dataset, Splits
from robust_arch.data.images import ImageSet, stratified
from robust_arch.data.reading import Reading

__all__ = ["Dataset", "ImageSet", "Reading", "Splits", "stratified"]
