"""Checkpoints: written whole or not at all, read without running code; weights of the peers."""

from .atomic_file import save_atomically
from .checkpointer import Checkpointer, megabytes
from .class_rows import class_names_of
from .compare import compare_checkpoints
from .exact_weights import load_weights
from .export import Format, export_weights, own_weights
from .interop import PeerWeights, inference_weights
from .load_report import LoadReport
from .loading import LoadOptions, load_pretrained, read_pretrained
from .reading import load_checkpoint, read_weights
from .run_lock import RunLock, is_locked, make_output_dir

__all__ = [
    "Checkpointer",
    "Format",
    "LoadOptions",
    "LoadReport",
    "PeerWeights",
    "RunLock",
    "class_names_of",
    "compare_checkpoints",
    "export_weights",
    "inference_weights",
    "is_locked",
    "load_checkpoint",
    "load_pretrained",
    "load_weights",
    "make_output_dir",
    "megabytes",
    "own_weights",
    "read_pretrained",
    "read_weights",
    "save_atomically",
]
