"""The operators of namespace ``detlite``: native kernels where they were built, else plain torch.

csrc/library.cpp holds the schemas and csrc/ the kernels for CPU and CUDA. Plain torch is registered
behind them for every other device, and stands in for all of them where the extension is missing:
one path for callers, for ``torch.compile`` and for export.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch

_FOLDER = Path(__file__).parent


def _load(name: str) -> str:
    """Load a library beside this file; returns why that failed, or an empty string."""
    files = sorted(_FOLDER.glob(f"{name}.*"))
    if not files:
        return "it was not built"
    try:
        torch.ops.load_library(files[0])
    except OSError as error:
        return str(error)
    return ""


def _load_all() -> None:
    failure = _load("_native")
    # Its kernels need libtorch_cuda, which a torch for the CPU does not have.
    if not failure and torch.version.cuda is not None and torch.cuda.is_available():
        failure = _load("_native_cuda")
    if failure:
        warnings.warn(
            f"detlite runs without its native ops, slower but with the same results: {failure}. "
            "Install a C++ compiler (for a GPU also nvcc), then run `pip install -e .` again in "
            "detlite's folder; its output with -v says what is missing",
            RuntimeWarning,
            stacklevel=2,
        )


_load_all()
_LIBRARY = torch.library.Library("detlite", "FRAGMENT")


def register(in_plain_torch: Callable, fake: Callable) -> Callable:
    """Make the operator of the name of ``in_plain_torch`` and return it.

    Args:
        in_plain_torch: What runs where there is no kernel; its annotations are the op's schema.
        fake: The same for tensors without data: shapes and types of the results.
    """
    name = in_plain_torch.__name__
    if not hasattr(torch.ops.detlite, name):
        _LIBRARY.define(name + torch.library.infer_schema(in_plain_torch, mutates_args=()))
    _LIBRARY.impl(name, in_plain_torch, "CompositeExplicitAutograd")
    torch.library.register_fake(f"detlite::{name}", fake, lib=_LIBRARY)
    return getattr(torch.ops.detlite, name).default


def register_gradient(name: str, backward: Callable, setup_context: Callable) -> None:
    """Give an operator its gradient, see ``torch.library.register_autograd``."""
    torch.library.register_autograd(
        f"detlite::{name}", backward, setup_context=setup_context, lib=_LIBRARY
    )
