"""Configs in a few lines."""

import textwrap

import pytest

from detlite.config import check_tree
from detlite.config.tree import parse_yaml

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
