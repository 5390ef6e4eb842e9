"""What the tests of the model parts share."""

import re

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def resnet_weights_from_torchvision():
    """A function from torchvision's state dict of a ResNet to ours."""

    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        converted = {}
        for name, value in state.items():
            name = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", name)
            name = re.sub(r"\bbn(\d)", r"conv\1.norm", name)
            name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
            name = re.sub(r"^conv1", "stem.conv1", name)
            if not name.startswith("fc."):
                converted[name] = value
        return converted

    return convert


@pytest.fixture(scope="session")
def randomize_norms():
    """A function that gives every normalization of a model other statistics, scales and shifts."""

    def randomize(model: nn.Module, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        for module in model.modules():
            for name in ("weight", "bias", "running_mean", "running_var"):
                value = getattr(module, name, None)
                if value is None or isinstance(module, nn.Conv2d | nn.Linear):
                    continue
                drawn = torch.rand(value.shape, generator=generator)
                with torch.no_grad():
                    value.copy_(0.2 * drawn - 0.1 if name in ("bias", "running_mean") else drawn)
                    if name in ("weight", "running_var"):
                        value.add_(0.5)

    return randomize
