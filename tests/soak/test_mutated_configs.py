import importlib.util
import pathlib

import pytest

PATH = pathlib.Path(__file__).with_name("mutated_configs.py")


@pytest.fixture(scope="module")
def soak():
    spec = importlib.util.spec_from_file_location("mutated_configs", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mutated_configs_load_with_their_change_or_are_refused(soak):
    assert soak.failures(count=15, seed=1, built=0.0) == []


@pytest.mark.slow
def test_a_thousand_mutated_configs_load_with_their_change_or_are_refused(soak):
    assert soak.failures(count=1000, seed=0) == []


def test_a_change_that_is_lost_is_found(soak):
    assert soak.difference(3, {"seed": 3}, "seed") == ""
    assert "resolved to 4" in soak.difference(3, {"seed": 4}, "seed")
    assert "is not in" in soak.difference(3, {}, "seed")
