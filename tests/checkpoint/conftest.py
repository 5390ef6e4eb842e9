"""Small models, and files of weights for them."""

import logging
import pathlib

import pytest
import torch

from detlite import build_model, load_config
from detlite.modeling import build_meta_arch

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
DETECTRON2 = [
    ("backbone.", "backbone.bottom_up."),
    ("neck.laterals.p", "backbone.fpn_lateral"),
    ("neck.outputs.p", "backbone.fpn_output"),
    ("neck.extra_levels.", "backbone.top_block."),
    ("head.box_subnet.", "head.bbox_subnet."),
    ("head.box_pred.", "head.bbox_pred."),
]
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


@pytest.fixture(scope="session")
def detlite_content():
    """What a checkpoint of a model holds."""

    def make(model, config):
        return {
            "format": "detlite",
            "model": model.state_dict(),
            "config": config.to_yaml(),
            "class_names": list(model.class_names),
        }

    return make


@pytest.fixture(scope="session")
def detectron2_state():
    """A narrow model's tensors in detectron2's names."""

    def make(model):
        state = {}
        for name, value in model.state_dict().items():
            for ours, theirs in DETECTRON2:
                if name.startswith(ours):
                    name = name.replace(ours, theirs, 1)
                    break
            if not name.startswith("loss_normalizer."):
                state[name] = value
        return state

    return make


@pytest.fixture
def log(caplog):
    """What is logged, the tables of loading too."""
    caplog.set_level(logging.INFO, logger="detlite")
    return caplog
