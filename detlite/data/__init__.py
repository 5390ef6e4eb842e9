"""Data sets, transforms, the order of samples, and loaders."""

from . import datasets
from .batch_transforms import BATCH_TRANSFORM_REGISTRY, BatchTransform
from .build import (
    build_datasets,
    build_test_loader,
    build_train_loader,
    check_class_count,
    read_as_configured,
)
from .classification_dataset import ClassificationDataset
from .detection_dataset import DetectionDataset
from .image_dataset import ImageDataset
from .image_io import ImageReader, read_image
from .loader import Loader
from .mapper import TestData, TrainingData, transform_sample
from .registries import DATASET_REGISTRY, SAMPLER_REGISTRY, TRANSFORM_REGISTRY
from .samplers import TrainingSampler
from .transforms import RandomRotate90, ResizeShortestEdge, build_transforms

__all__ = [
    "BATCH_TRANSFORM_REGISTRY",
    "DATASET_REGISTRY",
    "SAMPLER_REGISTRY",
    "TRANSFORM_REGISTRY",
    "BatchTransform",
    "ClassificationDataset",
    "DetectionDataset",
    "ImageDataset",
    "ImageReader",
    "Loader",
    "RandomRotate90",
    "ResizeShortestEdge",
    "TestData",
    "TrainingData",
    "TrainingSampler",
    "build_datasets",
    "build_test_loader",
    "build_train_loader",
    "build_transforms",
    "check_class_count",
    "datasets",
    "read_as_configured",
    "read_image",
    "transform_sample",
]
