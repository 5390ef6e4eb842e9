import math

import pytest

from detlite import ConfigError
from detlite.config.tree import Origin, Tree, parse_override, parse_yaml


def values_of(text):
    return parse_yaml(text, "x.yaml").values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E4", 1e4),
        (".5", 0.5),
        ("5.", 5.0),
        ("-0.5e+3", -500.0),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("010", 10),
        ("08", 8),
        ("+1", 1),
        ("0x1F", 31),
        ("0o17", 15),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("1e", "1e"),
        ("1.2.3", "1.2.3"),
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("=", "="),
        ("True", True),
        ("false", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("'1e-4'", "1e-4"),
        ("!!str 5", "5"),
        ("[a, [b], {c: 1}]", ["a", ["b"], {"c": 1}]),
        ("größe", "größe"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    found = values_of(f"key: {text}")["key"]
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_number():
    assert math.isnan(values_of("key: .nan")["key"])


@pytest.mark.parametrize("key", ["no", "on", "y", "'1'", "'true'"])
def test_words_that_old_yaml_took_for_booleans_are_keys(key):
    assert values_of(f"{key}: 1") == {key.strip("'"): 1}


def test_an_empty_text_is_an_empty_config():
    assert values_of("") == {}
    assert values_of("# only a comment\n") == {}


def test_anchors_and_aliases_share_values_and_not_objects():
    values = values_of("a: &a {x: [1]}\nb: *a\nc: *a\n")
    assert values["a"] == values["b"] == values["c"] == {"x": [1]}
    assert values["b"] is not values["c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "x.yaml:3: key 'a' stands here a second time"),
        ("a:\n  b: {c: 1, c: 2}\n", "x.yaml:2: key 'c' stands here a second time"),
        ("a: 1\n3: x\n", "x.yaml:2: keys are words, got 3"),
        ("true: x\n", "x.yaml:1: keys are words, got True"),
        ("? [a, b]\n: c\n", r"x.yaml:1: keys are words, got \['a', 'b'\]"),
        ("a: &a {b: 1}\nc: {<<: *a}\n", "x.yaml:2: YAML 1.2 has no `<<`; name a file in `_base_`"),
        ("a: &a [*a]\n", "x.yaml:1: an anchor that holds an alias of itself"),
        ("a: *b\n", "x.yaml:1:4: this is not valid YAML: found undefined alias 'b'"),
        ("a: 1\n b: 2\n", "x.yaml:2:3: this is not valid YAML"),
        ("a: 'x\n", "this is not valid YAML: found unexpected end of stream"),
        ("\ta: 1\n", "x.yaml:1:1: this is not valid YAML: a tab; YAML indents"),
        ("a: 1\n---\nb: 1\n", "x.yaml:2:1: this is not valid YAML: but found another document"),
        ("- a\n- b\n", "x.yaml: a config is a mapping `key: value`, got a list"),
        ("word", "x.yaml: a config is a mapping `key: value`, got 'word'"),
        ("a: !!int x\n", "x.yaml:1: 'x' is no YAML int"),
        ("a: !!bool maybe\n", "x.yaml:1: 'maybe' is no YAML bool"),
    ],
)
def test_a_broken_text_is_an_error_with_file_and_line(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_yaml(text, "x.yaml")


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system [echo]",
        "!!python/name:os.system ''",
        "!!python/object:argparse.Namespace {a: 1}",
        "!!python/tuple [1, 2]",
        "!mine {a: 1}",
        "!!binary YQ==",
        "!!set {a, b}",
        "!!timestamp 2020-01-01",
    ],
)
def test_tags_that_make_objects_are_refused_wherever_they_stand(value):
    for text in (f"key: {value}", f"key: [1, {value}]", f"key: {{a: {value}}}"):
        with pytest.raises(ConfigError, match=r"x\.yaml:1: tag '.*' is refused"):
            parse_yaml(text, "x.yaml")


def test_every_value_knows_its_line():
    tree = parse_yaml("a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n", "x.yaml")
    lines = {".".join(path): origin.line for path, origin in tree.origins.items()}
    assert lines == {"a": 1, "a.b": 2, "a.c": 3, "a.c.0": 4, "a.c.1": 5, "a.c.1.d": 5}
    assert str(tree.origin(("a", "c", "1", "d"))) == "x.yaml:5"
    assert str(tree.origin(("a", "c", "1", "no_such"))) == "x.yaml:5"
    assert tree.origin(("no_such",)) is None


def merged(*texts):
    tree = Tree()
    for i, text in enumerate(texts):
        tree.merge(parse_yaml(text, f"{i}.yaml"))
    return tree


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("{a: 1, b: 2}", "{b: 3, c: 4}", {"a": 1, "b": 3, "c": 4}),
        ("{a: {b: 1, c: 2}}", "{a: {c: 3}}", {"a": {"b": 1, "c": 3}}),
        ("{a: [1, 2, 3]}", "{a: [4]}", {"a": [4]}),
        ("{a: [{b: 1}]}", "{a: [{c: 2}]}", {"a": [{"c": 2}]}),
        ("{a: {b: 1}}", "{a: null}", {"a": None}),
        ("{a: 1}", "{a: {b: 1}}", {"a": {"b": 1}}),
        ("{a: {name: X, b: 1}}", "{a: {b: 2}}", {"a": {"name": "X", "b": 2}}),
        ("{a: {name: X, b: 1}}", "{a: {name: X, c: 2}}", {"a": {"name": "X", "b": 1, "c": 2}}),
        ("{a: {name: X, b: 1}}", "{a: {name: Y, c: 2}}", {"a": {"name": "Y", "c": 2}}),
        ("{a: {b: {name: X, c: 1}}}", "{a: {b: {name: Y}}}", {"a": {"b": {"name": "Y"}}}),
        ("{a: 1, b: 2}", "{name: astray}", {"a": 1, "b": 2, "name": "astray"}),
        ("{a: 1}", "{}", {"a": 1}),
    ],
)
def test_mappings_merge_and_all_else_is_replaced(old, new, expected):
    assert merged(old, new).values == expected


def test_merging_keeps_the_place_of_each_value():
    tree = merged("a:\n  b: 1\n  c: 2\nd: [1, 2]\n", "a:\n\n  c: 3\n", "d: [x]\n")
    origins = {".".join(path): str(origin) for path, origin in tree.origins.items()}
    assert origins == {
        "a": "0.yaml:1",
        "a.b": "0.yaml:2",
        "a.c": "1.yaml:3",
        "d": "2.yaml:1",
        "d.0": "2.yaml:1",
    }


def test_a_replaced_block_leaves_no_places_behind():
    tree = merged("a: {name: X, b: 1}\n", "\na: {name: Y}\n")
    assert set(tree.origins) == {("a",), ("a", "name")}
    assert tree.origins["a",] == Origin("1.yaml", 2)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a.b=1", {"a": {"b": 1}}),
        ("a=", {"a": None}),
        ("a=1e-4", {"a": 1e-4}),
        ("a=x=y", {"a": "x=y"}),
        (" a . b = [1, {c: no}]", {"a": {"b": [1, {"c": "no"}]}}),
    ],
)
def test_an_override_is_a_path_and_yaml(text, values):
    assert parse_override(text).values == values


@pytest.mark.parametrize("text", ["", "a", "=1", "a..b=1", "a.=1", "--lr"])
def test_what_is_no_override_is_told_how_one_is_written(text):
    with pytest.raises(ConfigError, match=r"is written key\.path=value, e\.g\..*; got '"):
        parse_override(text)


@pytest.mark.parametrize("text", ["a=[1", "a={b: 1, b: 2}", "a=!!python/name:os.system", "a=*x"])
def test_an_override_with_a_broken_value_is_named(text):
    with pytest.raises(ConfigError) as error:
        parse_override(text)
    assert str(error.value).startswith(f"override '{text}'")


def overridden(text, *overrides):
    tree = parse_yaml(text, "x.yaml")
    for override in overrides:
        tree.merge(parse_override(override))
    return tree


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a.1=9", {"a": [1, 9, {"name": "X", "b": [3, 4]}]}),
        ("a.2.b.0=9", {"a": [1, 2, {"name": "X", "b": [9, 4]}]}),
        ("a.2.c=9", {"a": [1, 2, {"name": "X", "b": [3, 4], "c": 9}]}),
        ("a.2={c: 9}", {"a": [1, 2, {"name": "X", "b": [3, 4], "c": 9}]}),
        ("a.2={name: Y}", {"a": [1, 2, {"name": "Y"}]}),
        ("a.2.name=Y", {"a": [1, 2, {"name": "Y"}]}),
        ("a=[9]", {"a": [9]}),
        ("a={b: 9}", {"a": {"b": 9}}),
        ("b.0=9", {"a": [1, 2, {"name": "X", "b": [3, 4]}], "b": {"0": 9}}),
    ],
)
def test_an_override_reaches_into_lists_by_number(override, expected):
    assert overridden("a: [1, 2, {name: X, b: [3, 4]}]", override).values == expected


@pytest.mark.parametrize("part", ["3", "-1", "x", "01", "²"])
def test_an_override_of_an_entry_that_is_not_there_tells_how_many_there_are(part):
    with pytest.raises(ConfigError, match=r"a\.b, a list of 3; entries are numbered from 0"):
        overridden("a: {b: [1, 2, 3]}", f"a.b.{part}=9")


def test_an_override_leaves_the_places_of_its_neighbours():
    tree = overridden("a:\n  - {b: 1, c: 2}\n  - 3\n", "a.0.b=9", "d.e=1")
    origins = {".".join(path): str(origin) for path, origin in tree.origins.items()}
    assert origins == {
        "a": "x.yaml:1",
        "a.0": "x.yaml:2",
        "a.0.b": "override 'a.0.b=9'",
        "a.0.c": "x.yaml:2",
        "a.1": "x.yaml:3",
        "d": "override 'd.e=1'",
        "d.e": "override 'd.e=1'",
    }
