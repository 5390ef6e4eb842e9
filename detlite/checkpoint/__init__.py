"""Checkpoints: written whole or not at all, read without running code."""

from .checkpointer import (
    Checkpointer,
    inference_weights,
    load_checkpoint,
    load_weights,
    save_atomically,
)

__all__ = [
    "Checkpointer",
    "inference_weights",
    "load_checkpoint",
    "load_weights",
    "save_atomically",
]
