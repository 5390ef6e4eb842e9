"""Checks of every network: what autograd, memory formats, mixed precision and files ask of it."""

import copy
import io
import pickle
import re
import shutil
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from .catalogue import check
from .probes import (
    NETWORKS,
    check_finite,
    check_same,
    each_tensor,
    make_input,
    run,
    tensors_of,
)
from .report import Broken, NotApplicable
from .subject import Subject, fixed_random_state

BF16_ERROR = 0.25
"""Greatest error of a bf16 output, in norms of it: 8 bits, through a few dozen layers."""


@check(*NETWORKS)
def gradients_reach_every_parameter(subject: Subject) -> None:
    """Gradients reach every trained parameter, and none is NaN or infinite.

    A parameter without a gradient stops the training on several GPUs, and is mostly a mistake.
    """
    network = subject.build().train()
    outputs = run(network, make_input(subject))
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    if not trained:
        raise NotApplicable("it has no trained parameter")
    with fixed_random_state(1):
        total = sum((value * torch.randn_like(value)).sum() for value in outputs.values())
    if not isinstance(total, Tensor) or not total.requires_grad:
        raise Broken(f"no output has a gradient; is it detached? Trained: {', '.join(trained)}")
    total.backward()
    unused = [name for name, parameter in trained.items() if parameter.grad is None]
    if unused:
        raise Broken(
            f"{len(unused)} of {len(trained)} trained parameters get no gradient: "
            f"{_some(unused)}; remove them, use them, or set requires_grad to False"
        )
    check_finite({name: p.grad for name, p in trained.items() if p.grad is not None}, "gradients")


@check(*NETWORKS)
def the_same_seed_gives_the_same_weights(subject: Subject) -> None:
    """The same seed gives the same first weights; they are drawn from torch's generator."""
    first, second = (subject.build(weights_seed=3).state_dict() for _ in range(2))
    if not first:
        raise NotApplicable("it has no weights")
    check_same(second, first, "a second build from the same seed", tolerance=0)


@check(*NETWORKS)
def evaluation_is_deterministic(subject: Subject) -> None:
    """In evaluation the same input gives the same output, and changes no state."""
    network, value = subject.build().eval(), make_input(subject)
    before = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        first, second = run(network, value), run(network, value)
    check_same(second, first, "a second call", tolerance=0)
    if before:
        check_same(network.state_dict(), before, "state_dict() after a call", tolerance=0)


@check(*NETWORKS)
def an_image_does_not_depend_on_its_batch(subject: Subject) -> None:
    """In evaluation an image alone gives what it gives within a batch."""
    network, value = subject.build().eval(), make_input(subject, num_images=3)
    with torch.no_grad():
        together = {name: out[1:2] for name, out in run(network, value).items()}
        alone = run(network, each_tensor(lambda tensor: tensor[1:2], value))
    check_same(alone, together, "the image alone")


@check(*NETWORKS)
def forward_leaves_its_input_alone(subject: Subject) -> None:
    """``forward`` changes its input neither in place nor by adding to it."""
    network, value = subject.build().train(), make_input(subject)
    before, outer = copy.deepcopy(value), type(value)
    run(network, value)
    if outer in (dict, list) and len(value) != len(before):
        raise Broken(
            f"the {outer.__name__} it was given had {len(before)} entries, now {len(value)}"
        )
    for i, (now, then) in enumerate(zip(tensors_of(value), tensors_of(before), strict=True)):
        if not torch.equal(now, then):
            raise Broken(f"input tensor {i}, of shape {tuple(then.shape)}, was changed in place")


@check(*NETWORKS)
def channels_last_gives_the_same(subject: Subject) -> None:
    """With ``train.channels_last`` the output is the same; ``view`` needs ``reshape`` instead."""
    network, value = subject.build().eval(), make_input(subject)
    with torch.no_grad():
        expected = run(network, value)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        value = each_tensor(lambda x: x.contiguous(memory_format=torch.channels_last), value)
        found = run(network, value)
    check_same(found, expected, "in channels_last", tolerance=1e-3)


@check(*NETWORKS)
def bf16_runs_and_is_near(subject: Subject) -> None:
    """With ``train.precision: bf16`` it runs, forward and back, and is near float32."""
    network, value = subject.build(), make_input(subject)
    _settle_norms(network, value)
    network.eval()
    exact = run(network, value)
    with torch.autocast("cpu", torch.bfloat16):
        rough = run(network, value)
    check_finite(rough, "in bf16")
    for name, found in rough.items():
        right = exact[name].detach()
        error = (found.detach().float() - right).norm() / right.norm().clamp(min=1e-12)
        if not float(error) <= BF16_ERROR:
            raise Broken(
                f"'{name}' is off by {float(error):.1%} of its norm in bf16; at most "
                f"{BF16_ERROR:.0%} was expected"
            )
    total = sum(out.float().sum() for out in rough.values())
    if isinstance(total, Tensor) and total.requires_grad:
        total.backward()


@check(*NETWORKS)
def weights_saved_and_loaded_give_the_same(subject: Subject) -> None:
    """A second build that loads ``state_dict()`` gives the same output.

    What a network remembers or draws is a parameter or a buffer; a plain tensor attribute is not
    saved.
    """
    network, value = subject.build(weights_seed=0), make_input(subject)
    network.train()
    with torch.no_grad(), fixed_random_state(5):
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
        run(network, make_input(subject, seed=1))  # moves running statistics
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other = subject.build(weights_seed=1)
    other.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        check_same(run(other.eval(), value), run(network.eval(), value), "the loaded one")


@check(*NETWORKS)
def copies_give_the_same(subject: Subject) -> None:
    """``copy.deepcopy`` and pickle make one that gives the same; EMA and workers need it."""
    network, value = subject.build().eval(), make_input(subject)
    with torch.no_grad():
        expected = run(network, value)
        check_same(run(copy.deepcopy(network), value), expected, "a deep copy", tolerance=0)
        copied = pickle.loads(pickle.dumps(network))
        check_same(run(copied, value), expected, "a pickled copy", tolerance=0)


@check(*NETWORKS)
def everything_follows_the_device(subject: Subject) -> None:
    """After ``to(device)`` nothing stays behind: no device and no tensor of another is named."""
    network = subject.build().eval().to("meta")
    value = each_tensor(lambda tensor: tensor.to("meta"), make_input(subject))
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outputs = run(network, value)
    except (RuntimeError, NotImplementedError) as error:
        told = str(error).partition("\n")[0]
        if re.search(r"(same|expected) device|devices", told):
            raise Broken(
                f"on another device it fails: {told}; make tensors of an input's device, e.g. "
                "torch.arange(n, device=x.device), and register_buffer those that are kept"
            ) from error
        raise NotApplicable(
            f"it reads values of tensors, which the check's device has not: {told}"
        ) from error
    for name, found in outputs.items():
        if found.device.type != "meta":
            raise Broken(f"'{name}' is on {found.device}, and the network was moved away from it")


@check(*NETWORKS)
def compiled_it_gives_the_same(subject: Subject) -> None:
    """``torch.compile`` gives the same."""
    if not subject.compile:
        raise NotApplicable("--no-compile")
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        raise NotApplicable("there is no C++ compiler")
    network, value = subject.build().eval(), make_input(subject)
    torch._dynamo.reset()
    compiled: Any = torch.compile(network, dynamic=False)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of inductor's own
        check_same(run(compiled, value), run(network, value), "compiled", tolerance=1e-3)


def _settle_norms(network: nn.Module, value: Any) -> None:
    """Give batch normalizations the statistics of this input, as if they were trained on it."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        run(network.train(), value)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def reinitialize(network: nn.Module, seed: int = 0) -> None:
    """Give weights of two and more dimensions the size that lets signals through."""
    with torch.no_grad(), fixed_random_state(seed):
        for parameter in network.parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.normal_(std=fan_in**-0.5)
