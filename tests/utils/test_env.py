"""What a bug report needs."""

import logging

import pytest
import torch

from detlite.utils.env import PACKAGES, environment
from detlite.utils.logger import close_logger, setup_logger


def test_the_environment_names_versions_and_hardware():
    facts = environment()
    assert facts["torch"] == torch.__version__.partition("+")[0]
    assert set(PACKAGES) <= facts.keys()
    assert int(facts["cores"]) >= 1
    assert facts["detlite"][0].isdigit()
    assert "ops._native" in facts["compiled parts"] or facts["compiled parts"].startswith("none")


@pytest.mark.parametrize(("set_to", "told"), [(None, "not set (datasets/)"), ("/d", "/d")])
def test_the_place_of_the_data_is_told(monkeypatch, set_to, told):
    monkeypatch.delenv("DETLITE_DATASETS", raising=False)
    if set_to:
        monkeypatch.setenv("DETLITE_DATASETS", set_to)
    assert environment()["DETLITE_DATASETS"] == told


def test_the_log_goes_to_the_terminal_and_to_a_file(tmp_path, capsys):
    setup_logger(tmp_path)
    logging.getLogger("detlite.somewhere").info("hello %d", 3)
    logging.getLogger("detlite.somewhere").warning("beware")
    close_logger()
    text = (tmp_path / "log.txt").read_text()
    assert "somewhere]: hello 3" in text
    assert "WARNING beware" in text
    assert "hello 3" in capsys.readouterr().err
