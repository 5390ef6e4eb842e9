"""Pictures of what is known of an image and of what a model says, whatever the model is for."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from ..structures import Instances
from .visualizer import Visualizer

Found = Instances | Tensor
"""What a model says of an image: a detector's objects, or a classifier's scores (K,)."""


def found_in(output: Mapping[str, Any]) -> Found:
    """What a model's output for an image says, see ``MetaArch.forward``."""
    found: Found = output["instances"] if "instances" in output else output["scores"]
    return found


def draw_found(visualizer: Visualizer, found: Found) -> np.ndarray:
    """Draw detections, or the likeliest classes."""
    return visualizer.draw_classes(found) if isinstance(found, Tensor) else visualizer.draw(found)


def draw_truth(visualizer: Visualizer, sample: Mapping[str, Any]) -> np.ndarray:
    """Draw what a sample says: the boxes of its "instances", or the name of its "gt_class"."""
    if "instances" in sample:
        return visualizer.draw(sample["instances"])
    return visualizer.draw_classes(gt_class=int(sample["gt_class"]))


def draw_beside_truth(
    visualizer: Visualizer, sample: Mapping[str, Any], found: Found
) -> np.ndarray:
    """Draw boxes and detections on two pictures, a class and what it was taken for on one."""
    if isinstance(found, Tensor):
        return visualizer.draw_classes(found, gt_class=int(sample["gt_class"]))
    return visualizer.draw_comparison(sample["instances"], found)
