"""Configs in a few lines, and a newcomer's project."""

import importlib.util
import json
import pathlib
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from detlite.config import check_tree
from detlite.config.tree import parse_yaml
from detlite.utils.logger import close_logger

MODEL = """\
model:
  name: RetinaNet
  backbone: {name: ResNet, depth: 18}
  neck: {name: FPN}
  anchor_generator: {name: GridAnchorGenerator}
  head: {name: RetinaNetHead}
"""


@pytest.fixture
def checked():
    """Check the text of a config, a small model added where it has none."""

    def check(text):
        text = textwrap.dedent(text)
        return check_tree(
            parse_yaml(text if "model:" in text else text + MODEL, "x.yaml"), "x.yaml"
        )

    return check


@pytest.fixture
def write(tmp_path):
    """Write a YAML, or any text, under ``tmp_path``; returns its path."""

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).replace("MODEL\n", MODEL))
        return path

    return write


CONFIG = """\
# my first detector
output_dir: {folder}/run
device: cpu
model:
  name: RetinaNet
  backbone: {{name: ResNet, depth: 18, norm: BN, freeze_at: 0}}
  neck: {{name: FPN, out_channels: 16}}
  anchor_generator: {{name: GridAnchorGenerator}}
  head: {{name: RetinaNetHead, num_convs: 1}}
data:
  train: [{{name: CocoDetection, json: {folder}/train.json, images: {folder}/images}}]
  test: [{{name: CocoDetection, json: {folder}/test.json, images: {folder}/images}}]
  batch_size: 2
  num_workers: 0
solver: {{max_iter: 2, optimizer: {{name: SGD, lr: 0.001}}}}
train: {{log_period: 1, hooks: [{{name: TensorBoardWriter, enabled: false}}]}}
"""


def annotations(num_images):
    """COCO's json of one object on each image."""
    box = [4, 4, 20, 20]
    return {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": 64, "width": 64} for i in range(num_images)
        ],
        "annotations": [
            {"id": 10 + i, "image_id": i, "category_id": 1 + i % 2, "bbox": box}
            for i in range(num_images)
        ],
        "categories": [{"id": 1, "name": "ball"}, {"id": 2, "name": "cube"}],
    }


class Project:
    """A newcomer's folder: a config, six images and their annotations."""

    tool = pathlib.Path(__file__).parents[2] / "tools/train_net.py"
    annotations = staticmethod(annotations)

    def __init__(self, folder):
        self.folder = folder
        (folder / "images").mkdir()
        for i in range(6):
            pixels = np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"images/{i}.jpg")
        self.write("train.json", self.annotations(6))
        self.write("test.json", self.annotations(2))
        self.config = folder / "my.yaml"
        self.config.write_text(CONFIG.format(folder=folder))

    def write(self, name, content):
        (self.folder / name).write_text(json.dumps(content))

    def change(self, old, new):
        """Edit the config."""
        text = self.config.read_text()
        assert text.count(old) == 1
        self.config.write_text(text.replace(old, new))

    def line(self, part):
        """The place ``my.yaml:N`` of a line of the config."""
        lines = self.config.read_text().splitlines()
        (number,) = (i for i, line in enumerate(lines, 1) if part in line)
        return f"{self.config}:{number}"


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@pytest.fixture
def train(project, monkeypatch, capsys):
    """Run ``tools/train_net.py`` in this process; returns exit code, stdout and stderr."""
    spec = importlib.util.spec_from_file_location("train_net_of_mistakes", project.tool)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*arguments):
        command = ["train_net.py", "--config-file", str(project.config), *arguments]
        monkeypatch.setattr(sys, "argv", command)
        code = 0
        try:
            tool.run_cli(tool.main, tool.parser())
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield run
    close_logger()
