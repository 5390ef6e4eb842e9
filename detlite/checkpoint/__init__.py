"""Checkpoints: written whole or not at all, read without running code; weights of the peers."""

from .checkpointer import Checkpointer, load_weights, save_atomically
from .class_rows import class_names_of
from .export import Format, export_weights, own_weights
from .interop import PeerWeights, inference_weights
from .load_report import LoadReport
from .loading import LoadOptions, load_pretrained, read_pretrained
from .reading import load_checkpoint, read_weights

__all__ = [
    "Checkpointer",
    "Format",
    "LoadOptions",
    "LoadReport",
    "PeerWeights",
    "class_names_of",
    "export_weights",
    "inference_weights",
    "load_checkpoint",
    "load_pretrained",
    "load_weights",
    "own_weights",
    "read_pretrained",
    "read_weights",
    "save_atomically",
]
