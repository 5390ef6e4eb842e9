"""The weights of other frameworks: their names and ours, read and written."""

from .detectron2 import write_detectron2
from .mmdet import write_mmdet
from .peer_weights import CLASSIFIER, CLASSIFIER_TENSORS, PeerWeights
from .recognize import DETLITE, inference_weights, recognize
from .torchvision import write_torchvision

__all__ = [
    "CLASSIFIER",
    "CLASSIFIER_TENSORS",
    "DETLITE",
    "PeerWeights",
    "inference_weights",
    "recognize",
    "write_detectron2",
    "write_mmdet",
    "write_torchvision",
]
