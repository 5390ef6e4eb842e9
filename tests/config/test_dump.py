import pytest
import yaml

from detlite import load_config
from detlite.config import read_tree
from detlite.config.dump import dump_yaml
from detlite.config.tree import parse_yaml

TEXTS = [
    "plain",
    "",
    " ",
    "1e-4",  # a text for YAML 1.1, a number for 1.2
    "089",
    "1_000",  # the other way round
    "0x1F",
    "0o17",
    "no",
    "true",
    "null",
    "~",
    "2020-01-01",
    "1:30",
    "a # b",
    "a: b",
    "- a",
    "[a",
    "'",
    '"',
    "a\nb",
    "a\n",
    "tab\there",
    "...",
    "größe",
    "=",
    "<<",
    "!tag",
    "*a",
    "%",
    "@",
]
VALUES = [1, -1, 0.1, 1e-10, 1e22, 1.0, float("inf"), True, False, None, [], {}, *TEXTS]


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("comment", [None, lambda _: "a # comment"])
def test_what_is_written_is_read_again_by_old_and_new_yaml(value, comment):
    values = {
        "a": value,
        "b": [value, value],
        "c": {"d": value},
        "e": [{"f": value, "g": [value]}, {"h": value}],
        "i": [{"j": {"k": value}}, value],
        "l": [[value], [{}]],
    }
    text = dump_yaml(values, comment)
    assert parse_yaml(text, "x").values == values
    assert yaml.safe_load(text) == values
    assert max(map(len, text.splitlines())) < 200


@pytest.mark.parametrize("key", ["no", "1", "1e4", "a b", "a: b", "#", ""])
def test_keys_are_read_again(key):
    values = {key: {key: 1}, "x": [{key: [1]}]}
    assert parse_yaml(dump_yaml(values), "x").values == values


def test_the_text_is_one_that_a_person_would_write():
    values = {"lr": 0.1, "blocks": [{"name": "A", "sizes": [1, 2]}, {"name": "B"}], "s": {"t": {}}}
    assert dump_yaml(values) == (
        "lr: 0.1\nblocks:\n  - name: A\n    sizes: [1, 2]\n  - name: B\ns:\n  t: {}\n"
    )


def test_comments_stand_in_a_column_behind_the_values():
    text = dump_yaml({"a": 1, "b": {"long_key": [1, 2]}}, lambda path: ".".join(path))
    assert text == "a: 1                # a\nb:\n  long_key: [1, 2]  # b.long_key\n"


def test_every_line_of_a_config_tells_where_its_value_was_written(write):
    base = write("base.yaml", "data:\n  batch_size: 4\n  num_workers: 1\nMODEL\n")
    path = write("x.yaml", "_base_: base.yaml\ndata:\n\n  num_workers: 0\n")
    overrides = ["solver.max_iter=5", "data.test=[{name: Shapes, num_images: 2}]"]
    config = load_config(path, overrides)
    lines = config.to_yaml(read_tree(path, overrides)).splitlines()
    notes = {line.split("  # ")[0].strip(): line.split("  # ")[1] for line in lines if "#" in line}
    assert notes["batch_size: 4"] == f"{base}:2"
    assert notes["num_workers: 0"] == f"{path}:4"
    assert notes["depth: 18"] == f"{base}:6"
    assert notes["max_iter: 5"] == "override 'solver.max_iter=5'"
    assert notes["num_images: 2"].startswith("override 'data.test=[")
    assert notes["seed: 0"] == "default"
