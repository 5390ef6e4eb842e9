"""What docs/ shows works as it is written: code trains, configs load, files and links exist."""

import pathlib
import re

import pytest

from detlite import load_config
from detlite.config.from_detectron2.keys import DEFAULTS, UNREAD
from detlite.registry import filled_registries
from detlite.testing.discovery import registered_by, snapshot

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def write_blocks(page, folder):
    """Write the blocks that begin with `# name.py` or `# name.yaml` into a folder."""
    text = (ROOT / "docs" / page).read_text().replace("/path/to/detlite", str(ROOT))
    found = re.findall(
        r"```(?:python|yaml)\n(# ([\w.]+\.(?:py|yaml))\n.*?)```", text, flags=re.DOTALL
    )
    for content, name in found:
        (folder / name).write_text(content)
    return [name for _, name in found]


@pytest.fixture
def forget_components():
    """Take out of the registries what a test puts in."""
    before = snapshot()
    yield
    for registry, name in registered_by(before):
        del filled_registries()[registry.kind]._components[name]


@pytest.mark.usefixtures("forget_components")
def test_the_components_of_the_page_keep_their_contracts_and_train(tmp_path):
    assert "test_my_parts.py" in write_blocks("your_component.md", tmp_path)
    tests = (tmp_path / "test_my_parts.py").read_text()
    namespace = {"__file__": str(tmp_path / "test_my_parts.py")}
    exec(compile(tests, namespace["__file__"], "exec"), namespace)
    namespace["test_the_parts_keep_their_contracts"]()
    namespace["test_it_trains"](tmp_path / "run")


@pytest.mark.usefixtures("forget_components")
def test_the_configs_of_the_data_page_are_valid(tmp_path):
    names = write_blocks("your_data.md", tmp_path)
    configs = [name for name in names if name.endswith(".yaml")]
    assert len(configs) >= 3
    for name in configs:
        assert load_config(tmp_path / name).data.train


def test_the_loop_of_the_training_page_trains_and_evaluates(tmp_path, monkeypatch, capsys):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/quickstart.yaml").write_text(
        f"""\
_base_: {ROOT}/configs/quickstart.yaml
model: {{neck: {{out_channels: 16}}, head: {{num_convs: 1}}}}
data:
  train: [{{name: Shapes, num_images: 4, image_size: [64, 64]}}]
  test: [{{name: Shapes, num_images: 2, seed: 9, image_size: [64, 64]}}]
  batch_size: 2
  num_workers: 0
solver: {{max_iter: 2}}
test: {{precision: fp32}}
"""
    )
    monkeypatch.chdir(tmp_path)
    assert write_blocks("training.md", tmp_path) == ["own_loop.py"]
    namespace = {}
    exec((tmp_path / "own_loop.py").read_text(), namespace)
    assert "2/2  loss " in capsys.readouterr().out
    assert "AP50" in namespace["results"]["shapes_9"]["bbox"]
    assert (tmp_path / "output").is_dir()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    text = page.read_text()
    links = re.findall(r"\]\(([\w./]+\.\w+)[)#]", text)
    named = re.findall(
        r"(?:/path/to/detlite/|`)((?:tools|configs|projects|detlite|tests|csrc)/[\w/.]*)", text
    )
    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [name for name in named if not (ROOT / name.rstrip(".")).exists()]
    assert missing == []


def test_the_keys_of_detectron2_are_those_that_the_converter_knows():
    text = (ROOT / "docs/from_detectron2.md").read_text()
    rows = [
        line.split("|")[1]
        for line in text.partition("## Classes and functions")[0].splitlines()
        if line.startswith("| `")
    ]
    keys = [
        key
        for row in rows
        for key in re.findall(r"`([A-Z_0-9]+(?:\.[A-Z_0-9]+)+|[A-Z_0-9]+)`", row)
    ]
    assert len(keys) > 40
    known = {*DEFAULTS, *UNREAD}
    unknown = [
        key for key in keys if key not in known and not any(k.startswith(f"{key}.") for k in known)
    ]
    assert unknown == []
    told = {key for key in DEFAULTS if any(key == k or key.startswith(f"{k}.") for k in keys)}
    assert {*DEFAULTS} - told == set()
