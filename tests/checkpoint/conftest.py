"""Small models, and files of weights for them."""

import pathlib

import pytest
import torch

from detlite import build_model, load_config
from detlite.modeling import build_meta_arch

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
NARROW = ["device=cpu", "model.neck.out_channels=8", "model.head.num_convs=1", "model.weights=''"]


@pytest.fixture(scope="session")
def narrow_config():
    """Make a config of a recipe with narrow levels and a ResNet-18, so that it is small."""

    def make(*overrides, recipe="retinanet/retinanet_r50_fpn_1x_coco.yaml", depth=18):
        every = [*NARROW, f"model.backbone.depth={depth}", *overrides]
        return load_config(CONFIGS / recipe, every)

    return make


@pytest.fixture(scope="session")
def narrow_model(narrow_config):
    """Build a small model whose every tensor is random."""

    def make(class_names, *overrides, seed=0, **where):
        config = narrow_config(*overrides, **where)
        model = build_meta_arch(config.model, class_names)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for value in model.state_dict().values():
                if value.is_floating_point():
                    value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        return model

    return make


@pytest.fixture
def load(narrow_config, tmp_path):
    """Build the narrow model with weights from a file or from what a file shall hold."""

    def run(content, class_names, *overrides, complete=False, **where):
        path = content
        if not isinstance(content, str | pathlib.Path):
            path = tmp_path / "weights.pth"
            torch.save(content, path)
        config = narrow_config(f"model.weights={path}", *overrides, **where)
        return build_model(config, class_names, complete=complete)

    return run
