"""Every YAML of the repository is loaded and its model built; no data is needed for it."""

import pathlib

import pytest
import torch

from detlite import BATCH_TRANSFORM_REGISTRY, build_model, load_config
from detlite.config import read_tree
from detlite.data.transforms import build_transforms
from detlite.modeling import build_meta_arch

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(path for top in ("configs", "projects") for path in (ROOT / top).rglob("*.yaml"))
BASES = [path for path in FILES if "_base_" in path.parts]
CONFIGS = [path for path in FILES if "_base_" not in path.parts]
LARGE = [ROOT / "configs/retinanet", ROOT / "configs/parts", ROOT / "configs/classification"]


def name_of(path):
    return str(path.relative_to(ROOT))


def test_there_are_configs():
    assert ROOT / "configs/quickstart.yaml" in CONFIGS
    assert BASES


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_config_is_complete_and_its_model_can_be_built(path):
    config = load_config(path, ["model.weights=''", "device=cpu"])
    names = ["cat", "dog", "horse"]
    if path.parent in LARGE:
        # Without memory: to fill it with random weights takes a ResNet-101 some seconds.
        with torch.device("meta"):
            model = build_meta_arch(config.model, names)
    else:
        model = build_model(config, names)
    assert model.class_names == tuple(names)
    assert type(model).__name__ == config.model.name
    assert config.data.train, f"{name_of(path)} names no training data"
    build_transforms(config.data.train_transforms)
    build_transforms(config.data.test_transforms)
    for block in config.data.batch_transforms:
        BATCH_TRANSFORM_REGISTRY.build(block, num_classes=len(names))


def test_runs_write_into_folders_of_their_own():
    outputs = {path: load_config(path).output_dir for path in CONFIGS}
    assert len(set(outputs.values())) == len(CONFIGS), outputs


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_config_says_what_it_is(path):
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("path", BASES, ids=name_of)
def test_a_base_says_what_it_is_and_is_used(path):
    assert path.read_text().startswith("# ")
    read_tree(path)
    users = [other for other in FILES if path.name in other.read_text() and other != path]
    assert users, f"no config names {name_of(path)} in its _base_"
