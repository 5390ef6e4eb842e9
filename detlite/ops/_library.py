"""The operators of namespace ``detlite``: native kernels where they were built, else plain torch.

csrc/library.cpp holds the schemas and csrc/ the kernels for CPU and CUDA. Plain torch is registered
behind them for every other device, and stands in for all of them where the extension is missing:
one path for callers, for ``torch.compile`` and for export.
"""

import warnings
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

import torch
from torch._library.autograd import Info, make_autograd_impl
from torch.autograd.forward_ad import unpack_dual

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
    _LIBRARY.impl(name, _on_one_device(name, in_plain_torch), "CompositeExplicitAutograd")
    torch.library.register_fake(f"detlite::{name}", _on_one_device(name, fake), lib=_LIBRARY)
    return getattr(torch.ops.detlite, name).default


def register_gradient(
    in_plain_torch: Callable,
    backward: Callable | None = None,
    setup_context: Callable | None = None,
) -> None:
    """Make an operator differentiable.

    The formula serves ``backward()``. All else (forward mode, ``torch.func``) differentiates what
    plain torch computes: a formula would be passed over there, and the derivative be zero.

    Args:
        in_plain_torch: As given to ``register``.
        backward: See ``torch.library.register_autograd``; None: plain torch serves that too.
        setup_context: The same.
    """
    name = in_plain_torch.__name__
    # What torch.library.register_autograd registers, which has no way to ask for the rest.
    by_formula = make_autograd_impl(
        getattr(torch.ops.detlite, name).default, Info(backward, setup_context)
    )

    def differentiate(keyset: Any, *arguments: Any) -> Any:
        tensors = [each for each in arguments if isinstance(each, torch.Tensor)]
        by_torch = torch._C._are_functorch_transforms_active() or any(
            unpack_dual(each).tangent is not None for each in tensors
        )
        if backward is None and torch.is_grad_enabled():
            by_torch = by_torch or any(each.requires_grad for each in tensors)
        return (in_plain_torch if by_torch else partial(by_formula, keyset))(*arguments)

    _LIBRARY.impl(name, differentiate, "Autograd", with_keyset=True)


def _on_one_device(name: str, function: Callable) -> Callable:
    @wraps(function)
    def checked(*arguments: Any) -> Any:
        devices = {each.device for each in arguments if isinstance(each, torch.Tensor)}
        if len(devices) > 1:
            raise ValueError(
                f"the tensors of {name} must be on one device, got "
                + " and ".join(sorted(map(str, devices)))
            )
        return function(*arguments)

    return checked
