import importlib.util
import pathlib

import pytest

PATH = pathlib.Path(__file__).with_name("mutated_images.py")


@pytest.fixture(scope="module")
def soak():
    spec = importlib.util.spec_from_file_location("mutated_images", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mutated_images_are_read_or_refused(soak):
    assert soak.failures(count=40, seed=1) == []


@pytest.mark.slow
def test_two_thousand_mutated_images_are_read_or_refused(soak):
    assert soak.failures(count=2000, seed=0) == []


def test_a_cut_file_that_is_read_and_a_hang_are_found(soak, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(soak.originals()[0][1])
    assert "data are missing" in soak.problem_of(soak.Mutation("whole", b"", True), path)
    assert "no answer" in soak.run_within_limits(hang, 0.2, 2**30)


def hang():
    while True:
        pass
