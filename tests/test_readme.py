"""The README's examples work as they are written; its two commands are run by .ci/run."""

import pathlib
import re

import pytest
import yaml

from detlite import build_trainer, load_config
from detlite.errors import ConfigError

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    """The code blocks of a language, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def block_with(language, words):
    return next(block for block in blocks(language) if words in block)


def from_root(text):
    """The configs of the README lie in the repository's root; those of the test do not."""
    return text.replace("_base_: configs/", f"_base_: {ROOT}/configs/")


def test_the_component_of_the_readme_trains(tmp_path):
    (tmp_path / "my_loss.py").write_text(block_with("python", "SquaredLoss"))
    (tmp_path / "my.yaml").write_text(from_root(block_with("yaml", "my_loss.py")))
    config = load_config(
        tmp_path / "my.yaml",
        [
            f"output_dir={tmp_path / 'run'}",
            "data.train=[{name: Shapes, num_images: 4}]",
            "data.test=[]",
            "data.num_workers=0",
            "data.batch_size=2",
            "solver.max_iter=1",
            "train.hooks=[]",
        ],
    )
    trainer = build_trainer(config)
    trainer.train()
    assert type(trainer.model.box_loss).__name__ == "SquaredLoss"
    assert trainer.model.box_loss.weight == 2.0


def test_the_example_of_the_ops_runs():
    names = {}
    exec(block_with("python", "detlite.ops"), names)
    assert 0 < len(names["kept"]) < len(names["boxes"])


def test_the_config_for_own_data_is_valid(tmp_path):
    (tmp_path / "my_cells.yaml").write_text(from_root(block_with("yaml", "# my_cells.yaml")))
    config = load_config(tmp_path / "my_cells.yaml")
    assert config.data.train[0].json == "/data/cells/train.json"


def test_the_keys_that_the_readme_shows_exist(tmp_path):
    changes = yaml.safe_load(block_with("yaml", "torchvision.transforms.v2"))
    changes["_base_"] = str(ROOT / "configs/quickstart.yaml")
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(changes))
    assert load_config(tmp_path / "a.yaml").solver.optimizer.lr == 0.001


def test_mistakes_are_told_as_the_readme_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [
        "# my_cells.yaml",
        f"_base_: {ROOT}/configs/quickstart.yaml",
        "model:",
        "  backbone: {name: Resnet}",
        "  neck: {out_chanels: 256}",
    ]
    (tmp_path / "my_cells.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        load_config("my_cells.yaml")
    # Other tests may have registered backbones of their own.
    told = re.sub(r"Known: .*\.", "Known: ResNet.", str(caught.value))
    assert f"error: {told}" == block_with("text", "mistakes").strip()


def test_every_file_that_the_readme_links_to_exists():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert missing == []


def test_the_commands_of_the_readme_name_files_that_exist():
    named = re.findall(r"(?:tools|configs)/[\w/.]+\.(?:py|yaml)", README)
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []
