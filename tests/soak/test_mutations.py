"""A few mutations of each kind by default; as many as the scripts make are a longer proof."""

import importlib.util
import pathlib
from functools import partial

import pytest


def load(name):
    path = pathlib.Path(__file__).with_name(f"mutated_{name}.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "count", "options"),
    [
        ("configs", 15, {"built": 0.0}),
        ("images", 40, {}),
        ("annotations", 60, {}),
        pytest.param("configs", 1000, {}, marks=pytest.mark.slow),
        pytest.param("images", 2000, {}, marks=pytest.mark.slow),
        pytest.param("annotations", 5000, {}, marks=pytest.mark.slow),
    ],
)
def test_mutated_files_are_read_or_refused(name, count, options):
    assert load(name).failures(count, seed=1, **options) == []


def test_a_change_of_a_config_that_is_lost_is_found():
    difference = load("configs").difference
    assert difference(3, {"seed": 3}, "seed") == ""
    assert "resolved to 4" in difference(3, {"seed": 4}, "seed")
    assert "is not in" in difference(3, {}, "seed")


def test_a_cut_image_that_is_read_is_found(tmp_path):
    images = load("images")
    path = tmp_path / "a.jpg"
    path.write_bytes(images.originals()[0][1])
    assert "data are missing" in images.problem_of(images.Mutation("whole", b"", True), path)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (TypeError("odd"), "TypeError: odd"),
        (MemoryError(), "MemoryError"),
        ("x" * 2000, "a message of 2000 characters"),
        ("a\x07", "cannot be printed"),
    ],
)
def test_what_goes_wrong_with_an_annotation_file_is_found(tmp_path, monkeypatch, error, problem):
    annotations = load("annotations")

    def fail(mutation, folder):
        raise annotations.UserError(error) if isinstance(error, str) else error

    monkeypatch.setattr(annotations, "read", fail)
    monkeypatch.setattr(annotations.UserError, "__str__", Exception.__str__)
    check = partial(annotations.problem_of, annotations.Mutation("coco", b""), tmp_path)
    assert problem in annotations.run_within_limits(check, 5, 2**30)


def test_a_hang_and_a_death_are_found():
    within = load("images").run_within_limits
    assert "no answer" in within(hang, 0.2, 2**30)
    assert "ended with status" in within(lambda: __import__("os")._exit(3), 5, 2**30)


def hang():
    while True:
        pass
