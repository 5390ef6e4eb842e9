"""Configs that would exhaust time or memory end in a ConfigError that says why."""

import os

import pytest

from detlite import ConfigError, load_config
from detlite.config import parse_config, read_tree
from detlite.config.tree import MAX_CHARACTERS, parse_override, parse_yaml

BOMB = "a0: &a0 [lol, lol, lol]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)
TEXTS = {
    "aliases of lists": (BOMB, "aliases repeat more than 5,000 values"),
    "aliases of mappings": (BOMB.replace("[lol, lol, lol]", "{x: 1}"), "aliases repeat more"),
    "nested lists": ("a: " + "[" * 100_000, "nested deeper than 50 levels|not valid YAML"),
    "nested mappings": ("a: " + "{b: " * 1000, "nested deeper than 50 levels"),
    "nested dashes": ("- " * 1000 + "a", "nested deeper than 50 levels"),
    "nested keys": ("".join(" " * i + "a:\n" for i in range(1000)), "nested deeper than 50"),
    "nested by aliases": (
        "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 100)),
        "nested deeper than 50 levels",
    ),
    "NUL": ("seed: 1\noutput_dir: a\0b", "line 2 has the character U.0000"),
    "surrogate": ("output_dir: a\ud800", "line 1 has the character U.D800"),
    "escaped NUL": ('output_dir: "a\\0"', "U.0000"),
    "escaped surrogate": ('output_dir: "\\udcff"', "U.DCFF|not valid YAML"),
    "control character": ("output_dir: a\x07", "not valid YAML"),
    "too long": ("#" * (MAX_CHARACTERS + 1), "2,000,001 characters are too many"),
    "400 digits": ("seed: " + "9" * 400, "is an integer beyond 64 bits"),
    "5000 digits": ("seed: -" + "9" * 5000, "is an integer beyond 64 bits"),
    "2^63": (f"seed: {2**63}", "is an integer beyond 64 bits"),
    "hexadecimal": ("seed: 0xfffffffffffffffff", "is an integer beyond 64 bits"),
    "1e999": ("solver: {layer_decay: 1e999}", "'1e999' is a number beyond 1.8e308"),
    "1e-999": ("solver: {layer_decay: 1e-999}", "'1e-999' is a number too small"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_hostile_text_is_refused_with_its_reason(case):
    text, reason = TEXTS[case]
    with pytest.raises(ConfigError, match=reason) as error:
        parse_config(text, "the config within x.pth")
    assert len(str(error.value)) < 400
    assert len(str(error.value).splitlines()) <= 3


@pytest.mark.datasets
@pytest.mark.parametrize("name", ["bomb9.yaml", "mapbomb9.yaml"])
def test_the_alias_bombs_are_refused(cases_dir, name):
    path = cases_dir / "hostile" / name
    with pytest.raises(ConfigError, match="aliases repeat more than 5,000 values"):
        load_config(path)
    with pytest.raises(ConfigError, match="aliases repeat more than 5,000 values"):
        parse_config(path.read_text(), "the config within x.pth")


def test_a_long_list_of_classes_is_read():
    names = [f"class {i}" for i in range(40_000)]
    assert parse_yaml(f"classes: {names}", "x.yaml").values["classes"] == names


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.mkdir(), "is a folder, not a file"),
        (os.mkfifo, "is a pipe, socket or device"),
        (lambda path: path.symlink_to("/dev/zero"), "is a pipe, socket or device"),
        (lambda path: path.symlink_to(path), "cannot read .*: Too many levels of symbolic links"),
        (lambda path: path.write_bytes(b"a: 1\nb: \xff\n"), ":2 is not UTF-8: .*0xff"),
        (lambda path: path.write_bytes(b"#" * (MAX_CHARACTERS + 1)), "more than 2,000,000 bytes"),
    ],
    ids=["folder", "pipe", "device", "links", "bytes", "size"],
)
def test_what_is_no_file_of_text_is_refused_as_a_config_and_as_a_base(tmp_path, make, reason):
    make(tmp_path / "odd.yaml")
    (tmp_path / "x.yaml").write_text("_base_: odd.yaml\n")
    for name in ("odd.yaml", "x.yaml"):
        with pytest.raises(ConfigError, match=reason):
            read_tree(tmp_path / name)


@pytest.mark.parametrize("name", ["a\0b.yaml", "a" * 5000 + ".yaml", "\udcff.yaml"])
def test_a_name_that_no_file_can_have_is_an_error(tmp_path, name):
    with pytest.raises(ConfigError, match=r"cannot read|no file") as error:
        read_tree(tmp_path / name)
    assert len(str(error.value)) < 600


def test_text_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfseed: 3\n")
    assert read_tree(tmp_path / "x.yaml").values == {"seed": 3}


def test_a_diamond_of_bases_reads_each_file_once(write, monkeypatch):
    write("0.yaml", "seed: 7\n")
    for i in range(1, 40):
        write(f"a{i}.yaml", f"_base_: {i - 1}.yaml\n")
        write(f"b{i}.yaml", f"_base_: {i - 1}.yaml\n")
        write(f"{i}.yaml", f"_base_: [a{i}.yaml, b{i}.yaml]\n" if i < 25 else "")
    assert read_tree(write("x.yaml", "_base_: 24.yaml\n")).values == {"seed": 7}


def test_a_long_chain_of_bases_is_refused(write):
    for i in range(100):
        write(f"{i}.yaml", f"_base_: {i + 1}.yaml\n")
    with pytest.raises(ConfigError, match="more than 50 configs, each the `_base_` of the one"):
        read_tree(write("x.yaml", "_base_: 0.yaml\n"))


def test_a_base_named_too_often_is_refused(write):
    write("big.yaml", f"a: {list(range(20_000))}\n")
    path = write("x.yaml", f"_base_: [{', '.join(['big.yaml'] * 1000)}]\n")
    with pytest.raises(ConfigError, match="bases together have more than 100,000 values"):
        read_tree(path)


@pytest.mark.parametrize(
    "override",
    [
        "a.b.c.=",
        "=",
        ".=1",
        "a." * 1_000_000 + "b=1",
        "a" * 1_000_000,
        "data.train.999999999999=x",
        "data.train." + "9" * 100_000 + "=x",
        "seed={[",
        "seed=" + "[" * 1000,
        "seed=" + "9" * 400,
        "seed=&a [*a]",
        "seed=\udcff",
        "\udcff=1",
        "k" * 1_000_000 + "=1",
        "solver." + "k" * 1_000_000 + "=1",
        "imports=3",
        "imports=[[]]",
        "imports=['']",
        "imports=[..]",
        "imports=[/dev/zero.py]",
        "imports=[" + "a" * 10_000 + ".py]",
        "model=null",
        "model.backbone=null",
        "data.train=[null]",
        "data.train.0=3",
        "solver.parameter_groups.0.match=x",
        "_base_=x.yaml",
    ],
    ids=lambda text: text[:30],
)
def test_a_hostile_override_is_refused_in_a_short_message(write, override):
    path = write("x.yaml", "data: {train: [{name: Shapes, num_images: 3}]}\nMODEL\n")
    with pytest.raises(ConfigError) as error:
        load_config(path, [override])
    assert len(str(error.value)) < 1500
    assert len(str(error.value).splitlines()) <= 4


def test_an_override_of_a_deep_path_is_no_recursion():
    with pytest.raises(ConfigError, match="more than 50 parts"):
        parse_override(".".join(["a"] * 60) + "=1")


def test_a_checkpoint_with_imports_of_no_known_form_is_refused():
    for imports in ("3", "[1]", "{a: b}"):
        with pytest.raises(ConfigError, match="`imports` must be a list"):
            parse_config(f"imports: {imports}\n", "x.pth")


def test_many_mistakes_are_counted_and_the_first_are_told(checked):
    with pytest.raises(ConfigError, match=r"500 mistakes") as error:
        checked("solver: {" + ", ".join(f"k{i}: 1" for i in range(500)) + "}\n")
    lines = str(error.value).splitlines()
    assert len(lines) <= 22
    assert "480 more" in lines[-1]


def test_long_values_are_shortened(checked):
    with pytest.raises(ConfigError) as error:
        checked(f"solver: {{max_iter: {'x' * 100_000}}}\n")
    assert len(str(error.value)) < 400
