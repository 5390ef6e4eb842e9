"""tools/convert_config.py: what it prints, what it writes, what it says of a wrong file."""

import pytest

from detlite import load_config

RETINANET = """\
MODEL:
  META_ARCHITECTURE: RetinaNet
  BACKBONE: {NAME: build_retinanet_resnet_fpn_backbone}
  RESNETS: {OUT_FEATURES: [res3, res4, res5]}
  FPN: {IN_FEATURES: [res3, res4, res5]}
DATASETS:
  TRAIN: ("coco_2017_train",)
  TEST: ("coco_2017_val",)
"""
UNREAD = "MODEL: {RPN: {NMS_THRESH: 0.6}}\n"
LOST = "SOLVER: {BIAS_LR_FACTOR: 2.0}\n"


@pytest.fixture
def convert(run_tool, tmp_path):
    """Write a YAML and run the tool on it."""

    def run(text, *arguments):
        (tmp_path / "base.yaml").write_text(RETINANET)
        (tmp_path / "x.yaml").write_text(f"_BASE_: base.yaml\n{text}")
        return run_tool("convert_config", tmp_path / "x.yaml", *arguments)

    return run


def test_without_output_the_yaml_alone_goes_to_stdout(convert, tmp_path):
    code, out, err = convert(LOST)
    assert code == 0
    (tmp_path / "ours.yaml").write_text(out)
    assert load_config(tmp_path / "ours.yaml").model.name == "RetinaNet"
    assert "SOLVER.BIAS_LR_FACTOR  2.0      x.yaml:2  biases learn at the rate of the" in err


def test_with_output_the_yaml_is_written_and_the_tables_are_printed(convert, tmp_path):
    output = tmp_path / "new" / "ours.yaml"
    code, out, err = convert(LOST + UNREAD, "--output", output)
    assert (code, err) == (0, "")
    assert load_config(output).solver.optimizer.lr == 0.001
    assert out.startswith(f"wrote {output}\nWithout a counterpart here:\n")
    assert "Nothing is lost with these:\n" in out
    assert "MODEL.RPN.NMS_THRESH" in out


def test_a_whole_translation_says_so(convert, tmp_path):
    _, out, _ = convert("", "--output", tmp_path / "ours.yaml")
    assert out.endswith("every key is translated\n")


@pytest.mark.parametrize(("text", "code"), [("", 0), (UNREAD, 0), (LOST, 2)])
def test_strict_fails_and_writes_nothing_exactly_if_something_is_lost(
    convert, tmp_path, text, code
):
    output = tmp_path / "ours.yaml"
    found, out, err = convert(text, "--strict", "--output", output)
    assert found == code
    assert output.exists() == (code == 0)
    assert ("error: " in err) == (code == 2)
    assert ("SOLVER.BIAS_LR_FACTOR" in out) == (code == 2)


def test_the_translated_file_is_not_overwritten(convert, tmp_path):
    code, _, err = convert(LOST, "--output", tmp_path / "x.yaml")
    assert code == 2
    assert "is the file that is translated" in err
    assert (tmp_path / "x.yaml").read_text().endswith(LOST)


def test_an_output_that_cannot_be_written_is_told(convert, tmp_path):
    code, _, err = convert(LOST, "--output", tmp_path)
    assert code == 2
    assert "cannot be written" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL: {META_ARCHITECTURE: FCOS}", "MODEL.META_ARCHITECTURE is 'FCOS'"),
        ("A: !!python/object/apply:os.system ['true']", "x.yaml:2: the tag !!python/object/apply"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(convert, text, message):
    code, out, err = convert(text)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
