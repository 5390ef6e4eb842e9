import pathlib

import pytest

from detlite import BACKBONE_REGISTRY, ConfigError, load_config
from detlite.config import parse_config, read_tree

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
COMPONENT = """\
from detlite import BACKBONE_REGISTRY
from detlite.modeling.backbones import ResNet


@BACKBONE_REGISTRY.register
class {name}(ResNet):
    pass
"""


@pytest.fixture(autouse=True)
def forget_new_components(monkeypatch):
    monkeypatch.setattr(BACKBONE_REGISTRY, "_components", dict(BACKBONE_REGISTRY._components))


def test_a_config_without_base_is_loaded(write):
    config = load_config(write("x.yaml", "seed: 3\nMODEL\n"))
    assert config.seed == 3
    assert config.model.name == "RetinaNet"


def test_bases_are_relative_to_the_file_and_later_ones_win(write, monkeypatch, tmp_path):
    write("bases/a.yaml", "seed: 1\noutput_dir: a\ndata: {batch_size: 1, num_workers: 1}\nMODEL\n")
    write("bases/b.yaml", "_base_: deep/c.yaml\nseed: 2\n")
    write("bases/deep/c.yaml", "seed: 3\ndata: {num_workers: 3}\n")
    path = write("run/x.yaml", "_base_: [../bases/a.yaml, ../bases/b.yaml]\noutput_dir: x\n")
    monkeypatch.chdir(tmp_path / "run")
    config = load_config("x.yaml")
    assert (config.seed, config.output_dir) == (2, "x")
    assert (config.data.batch_size, config.data.num_workers) == (1, 3)
    assert load_config(path) == config


def test_an_absolute_base_is_taken_as_it_is(write):
    base = write("elsewhere/base.yaml", "seed: 7\nMODEL\n")
    assert load_config(write("x.yaml", f"_base_: {base}\n")).seed == 7


def test_two_files_may_share_a_base(write):
    write("base.yaml", "seed: 7\nMODEL\n")
    write("a.yaml", "_base_: base.yaml\n")
    write("b.yaml", "_base_: base.yaml\n")
    assert load_config(write("x.yaml", "_base_: [a.yaml, b.yaml]\n")).seed == 7


def test_a_block_with_another_name_replaces_that_of_the_base(write):
    write("base.yaml", "solver: {optimizer: {name: SGD, lr: 1.0, momentum: 0.5}}\nMODEL\n")
    same = write("same.yaml", "_base_: base.yaml\nsolver: {optimizer: {lr: 2.0}}\n")
    other = write("other.yaml", "_base_: base.yaml\nsolver: {optimizer: {name: AdamW}}\n")
    assert load_config(same).solver.optimizer.momentum == 0.5
    assert load_config(same).solver.optimizer.lr == 2.0
    assert load_config(other).solver.optimizer.lr == 0.001
    overridden = load_config(same, ["solver.optimizer.name=AdamW"])
    assert overridden.solver.optimizer.lr == 0.001


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_base_: nope.yaml", r"x\.yaml:1: there is no file .*nope\.yaml; in that folder: x\.y"),
        ("\n_base_: [x.yaml]", r"x\.yaml:2: `_base_` goes round in a circle: .*x\.yaml -> .*x\.ya"),
        ("_base_: {a: b}", r"x\.yaml: `_base_` must be a path or a list of paths, got \{'a'"),
        ("_base_:", r"`_base_` must be a path or a list of paths, got None"),
        ("_base_: .", r"x\.yaml:1: .* is a folder, not a file"),
        ("imports: a.py", r"x\.yaml:1: `imports` must be a list .* got 'a\.py'"),
        ("imports: [3]", r"x\.yaml:1: `imports` must be a list .* got \[3\]"),
        (
            "seed: 1\n\nimports:\n  - os\n  - no.py",
            r"x\.yaml:5: imports names /.*/no\.py, which doe",
        ),
        ("imports: [ghost_net]", r"No module named 'ghost_net'; a file .* ghost_net\.py$"),
        ("imports: [broken.py]", r"x\.yaml:1: importing .*broken\.py failed with SyntaxError: "),
    ],
)
def test_a_broken_reference_is_an_error_with_its_place(write, text, message):
    write("broken.py", "def broken(:\n")
    with pytest.raises(ConfigError, match=message):
        load_config(write("x.yaml", text + "\n"))


def test_a_circle_over_several_files_is_told_in_full(write):
    write("a.yaml", "_base_: b.yaml\n")
    write("b.yaml", "_base_: c.yaml\n")
    write("c.yaml", "_base_: a.yaml\n")
    with pytest.raises(ConfigError, match=r"a\.yaml -> .*b\.yaml -> .*c\.yaml -> .*a\.yaml$"):
        load_config(write("x.yaml", "_base_: a.yaml\n"))


def test_a_config_that_is_not_there_tells_its_neighbours(write):
    path = write("retinanet.yaml", "")
    with pytest.raises(ConfigError, match=r"retina\.yaml; in that folder: retinanet\.yaml"):
        load_config(path.with_name("retina.yaml"))


def test_imports_are_relative_to_their_yaml_and_add_up(write):
    write("base/one.py", COMPONENT.format(name="One"))
    write("two.py", COMPONENT.format(name="Two"))
    write("base/base.yaml", "imports: [one.py, json]\nMODEL\n")
    path = write(
        "x.yaml",
        """\
        _base_: base/base.yaml
        imports: [two.py, json]
        model: {backbone: {name: Two, depth: 18}}
        """,
    )
    config = load_config(path)
    assert config.imports == [
        str(path.parent / "base/one.py"),
        "json",
        str(path.parent / "two.py"),
    ]
    assert "One" in BACKBONE_REGISTRY
    assert config.model.backbone.name == "Two"


def test_an_import_of_the_command_line_is_relative_to_the_working_folder(
    write, tmp_path, monkeypatch
):
    write("one.py", COMPONENT.format(name="One"))
    write("work/two.py", COMPONENT.format(name="Two"))
    path = write("x.yaml", "imports: [one.py]\nMODEL\n")
    monkeypatch.chdir(tmp_path / "work")
    config = load_config(path, ["imports=[two.py]", "model.backbone={name: Two, depth: 18}"])
    assert config.imports == [str(tmp_path / "one.py"), str(tmp_path / "work/two.py")]
    with pytest.raises(
        ConfigError, match=r"override 'imports=\[no\.py\]': imports names /.*no\.py"
    ):
        load_config(path, ["imports=[no.py]"])


def test_an_error_within_an_imported_file_is_told_and_the_file_can_be_tried_again(write):
    path = write("x.yaml", "imports: [mine.py]\nMODEL\n")
    write("mine.py", "raise RuntimeError('half-written')\n")
    with pytest.raises(ConfigError, match=r"mine\.py failed with RuntimeError: half-written"):
        load_config(path)
    write("mine.py", COMPONENT.format(name="Mine"))
    load_config(path, ["model.backbone={name: Mine, depth: 18}"])


def test_overrides_are_laid_over_the_file_in_order(write):
    path = write("x.yaml", "data: {train: [{name: Shapes, num_images: 3, seed: 1}]}\nMODEL\n")
    config = load_config(
        path,
        ["seed=1", "seed=2", "data.train.0.num_images=5", "model.neck.extra_levels.name=P6P7"],
    )
    assert config.seed == 2
    assert (config.data.train[0].num_images, config.data.train[0].seed) == (5, 1)
    assert config.model.neck.extra_levels.name == "P6P7"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("solver.optimzer.lr=1", "section 'solver' has no 'optimzer'; did you mean 'optimizer'?"),
        ("solvr.max_iter=1", "the config has no 'solvr'; did you mean 'solver'?"),
        ("model.backbone.dept=18", "backbone 'ResNet' has no 'dept'; did you mean 'depth'?"),
        ("solver.max_iter=no", "'max_iter' must be an integer >= 1, got 'no' (str)"),
        ("solver.max_iter=", "'max_iter' must be an integer >= 1, got None (NoneType)"),
        (
            "data.train.json=x",
            "'json' is no entry of data.train, a list of 1; entries are numbered",
        ),
        ("data.train.1.json=x", "'1' is no entry of data.train, a list of 1"),
        ("data.train={name: Shapes}", "key 'train' must be a list of blocks, got {'name'"),
    ],
)
def test_a_wrong_override_is_named_with_what_would_be_right(write, override, message):
    path = write("x.yaml", "data: {train: [{name: Shapes, num_images: 3}]}\nMODEL\nsolver: {}\n")
    with pytest.raises(ConfigError) as error:
        load_config(path, [override])
    assert f"override '{override}': " in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("comments", [False, True])
@pytest.mark.parametrize("name", ["quickstart.yaml", "retinanet/retinanet_r50_fpn_1x_coco.yaml"])
def test_a_resolved_config_is_complete(write, name, comments):
    overrides = [
        "output_dir='1e5'",
        "data.train_transforms=[{name: RandomApply, transforms: [{name: ColorJitter}]}]",
        "solver.optimizer={name: AdamW, betas: [0.8, 0.9]}",
    ]
    config = load_config(CONFIGS / name, overrides)
    tree = read_tree(CONFIGS / name, overrides) if comments else None
    again = load_config(write("resolved.yaml", config.to_yaml(tree)))
    assert again == config
    assert again.to_yaml() == config.to_yaml()


def test_the_config_of_a_checkpoint_imports_nothing_unasked(write):
    mine = write("mine.py", COMPONENT.format(name="Mine"))
    text = load_config(write("x.yaml", f"imports: ['{mine}']\nMODEL\n")).to_yaml()
    with pytest.raises(
        ConfigError, match=r"model\.pth: it was made with .*mine\.py.*--trust-impor"
    ):
        parse_config(text, "model.pth")
    assert parse_config(text, "model.pth", trust_imports=True).imports == [str(mine)]


def test_a_shipped_config_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("_base_: detlite://quickstart.yaml\nsolver: {max_iter: 7}")
    assert load_config("detlite://quickstart.yaml").output_dir == "output/quickstart"
    assert load_config("a.yaml").solver.max_iter == 7
    with pytest.raises(ConfigError, match=r"no file .*/configs/quikstart\.yaml"):
        load_config("detlite://quikstart.yaml")
