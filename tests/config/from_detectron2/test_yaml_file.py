"""detectron2's YAMLs are read as fvcore and yacs read them, and nothing in them runs."""

import pytest
from fvcore.common.config import CfgNode

from detlite.config.from_detectron2 import read_detectron2_yaml
from detlite.errors import ConfigError


def flat(node, above=""):
    """The nested dict of fvcore by dotted keys, strings decoded by yacs, tuples as lists."""
    values = {}
    for key, value in node.items():
        if isinstance(value, dict):
            values |= flat(value, f"{above}{key}.")
        else:
            values[f"{above}{key}"] = as_lists(CfgNode._decode_cfg_value(value))
    return values


def as_lists(value):
    return [as_lists(v) for v in value] if isinstance(value, list | tuple) else value


BASE = """\
MODEL:
  ANCHOR_GENERATOR:
    SIZES: !!python/object/apply:eval ["[[x, x * 2**(1.0/3)] for x in [32, 64]]"]
  WEIGHTS: "detectron2://x.pkl"
  RESNETS: {DEPTH: 50, NORM: "", STRIDE_IN_1X1: no}
SOLVER:
  STEPS: (60000, 80000)
  BASE_LR: 1e-4
  GAMMA: 1.0e-1
"""
SECOND = """\
MODEL: {RESNETS: {DEPTH: 101}}
DATASETS:
  TRAIN: !!python/tuple [a, b]
  TEST: ("c",)
"""
TOP = """\
_BASE_: BASES
MODEL: {RESNETS: {NORM: "GN"}, PIXEL_STD: "[1.0, 2, '3']"}
SOLVER: {STEPS: "None", WARMUP_FACTOR: "1.0/1000"}
"""


@pytest.mark.parametrize("bases", ["base.yaml", "[base.yaml, deeper/second.yaml]", "./base.yaml"])
def test_bases_tuples_and_literals_are_read_as_fvcore_and_yacs_read_them(write, bases):
    write("base.yaml", BASE)
    write("deeper/second.yaml", SECOND)
    path = write("top.yaml", TOP.replace("BASES", bases))
    expected = flat(CfgNode.load_yaml_with_base(str(path), allow_unsafe=True))
    found = {key: stated.value for key, stated in read_detectron2_yaml(path).items()}
    assert found == expected
    assert found["SOLVER.STEPS"] is None
    assert found["MODEL.RESNETS.STRIDE_IN_1X1"] is False


def test_a_value_knows_the_file_and_line_that_state_it(write):
    write("base.yaml", BASE)
    stated = read_detectron2_yaml(write("top.yaml", TOP.replace("BASES", "base.yaml")))
    assert stated["MODEL.RESNETS.NORM"].place.endswith("top.yaml:2")
    assert stated["MODEL.RESNETS.DEPTH"].place.endswith("base.yaml:5")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A: 1\nB: !!python/object/apply:os.system ['touch OWNED']", "x.yaml:2: the tag !!python"),
        ('A: !!python/object/apply:eval [\'open("OWNED", "w")\']', "x.yaml:1: the expression"),
        ("A: !!python/object/apply:eval {args: ['1']}", "x.yaml:1: the eval tag is understood"),
        ("A: !!python/object/apply:eval ['1', {}]", "x.yaml:1: the eval tag is understood"),
        ("A: !!python/object/new:type [x]", "x.yaml:1: the tag !!python/object/new:type is ref"),
        ("A: [1, !!python/name:os.system ]", "x.yaml:1: the tag !!python/name:os.system is ref"),
        ("A: !!python/name:map {}", "x.yaml:1: the tag !!python/name:map is refused"),
        ("!!python/object:x.Y {A: 1}", "x.yaml:1: the tag !!python/object:x.Y is refused"),
        ("!!python/name:os.system : 1", "x.yaml:1: the tag !!python/name:os.system is refused"),
        ("A: !!python/tuple {}", "x.yaml:1: the tag !!python/tuple stands before a list"),
        ("A: !!int abc", "x.yaml:1: 'abc' is no YAML int"),
        ("A: 2001-99-99", "x.yaml:1: '2001-99-99' is no YAML timestamp"),
        ("<<: {A: 1}", "x.yaml:1: write the keys of '<<' out"),
        ("MODEL.WEIGHTS: a", "x.yaml:1: write the keys of 'MODEL.WEIGHTS' out"),
        ('"A\\nimports": 1', "x.yaml:1: a key is a word such as SOLVER, got 'A\\nimports'"),
        ("A: {B: 1, B: 2}", "x.yaml:1: A.B stands here a second time"),
        ("A: [1\nB: 2", "x.yaml:2:2: this is not valid YAML"),
        ("- 1", "x.yaml: a config of detectron2 is a mapping"),
        ("A: &a [*a]", "x.yaml: with its aliases"),
        (
            "A: &a0 [1]\n"
            + "\n".join(f"A{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]" for i in range(1, 30)),
            "x.yaml: with its aliases",
        ),
        ("A: " + "[" * 600 + "]" * 600, "x.yaml: this YAML is nested too deeply"),
        ("_BASE_: x.yaml", "x.yaml:1: `_BASE_` goes round in a circle: x.yaml -> x.yaml"),
        ("_BASE_: [1]", "x.yaml:1: `_BASE_` must be a path or a list of paths, got [1]"),
        ("_BASE_: {A: 1}", "x.yaml:1: `_BASE_` must be a path or a list of paths"),
        ("_BASE_: https://x.org/a.yaml", "x.yaml:1: `_BASE_` is a URL, https://x.org/a.yaml"),
        ("A: 1\n_BASE_: gone.yaml", "x.yaml:2: there is no file "),
        ("_BASE_: base.yaml\nSOLVER: 3", "x.yaml:2: SOLVER is a value in one file and a section"),
        ("_BASE_: base.yaml\nSEED: {A: 1}", "SEED.A is a value in one file and a section"),
    ],
)
def test_a_file_that_is_wrong_or_holds_code_is_refused_and_nothing_runs(
    tmp_path, monkeypatch, text, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text("SOLVER: {BASE_LR: 1.0}\nSEED: 1\n")
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_detectron2_yaml("x.yaml")
    assert message in str(caught.value)
    assert {p.name for p in tmp_path.iterdir()} == {"base.yaml", "x.yaml"}


def test_a_circle_of_bases_is_told_with_its_files(write):
    write("b.yaml", "_BASE_: a.yaml")
    with pytest.raises(ConfigError, match=r"in a circle: a\.yaml -> b\.yaml -> a\.yaml"):
        read_detectron2_yaml(write("a.yaml", "_BASE_: b.yaml"))


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone.yaml", "there is no file"), (".", "is a folder"), ("lazy.py", "is a LazyConfig")],
)
def test_what_is_no_yaml_file_is_told(tmp_path, name, message):
    with pytest.raises(ConfigError, match=message):
        read_detectron2_yaml(tmp_path / name)
