"""build_trainer from Python: it writes nothing, and the run logs as the command line's does."""

import logging

import pytest

from detlite import build_trainer
from detlite.utils.logger import close_logger

QUIET = ["data.test=[]", "train.hooks=[]", "solver.max_iter=1"]


@pytest.fixture
def begin_program(monkeypatch):
    """Undo what has been said of logging, as in a new program; to be called within the test.

    pytest adds its handlers to the root logger between the fixtures and the test.
    """
    logger = logging.getLogger("detlite")
    level = logger.level

    def begin():
        close_logger()
        monkeypatch.setattr(logging.getLogger(), "handlers", [])
        logger.setLevel(logging.NOTSET)
        return logger

    yield begin
    close_logger()
    logger.setLevel(level)


def test_building_leaves_no_folder_behind(tiny_config, tmp_path):
    trainer = build_trainer(tiny_config())
    assert list(tmp_path.iterdir()) == []
    trainer.max_iter = 1
    trainer.train()
    assert "max_iter: 4" in (tmp_path / "run/config.yaml").read_text()


def test_a_run_from_python_logs_to_the_screen_and_to_its_file(
    tiny_config, tmp_path, begin_program, capsys
):
    begin_program()
    build_trainer(tiny_config(*QUIET)).train()
    screen = capsys.readouterr().err.splitlines()
    assert (tmp_path / "run/log.txt").read_text().splitlines() == screen
    for words in ("training on 12 images", "M parameters", "iter: 0/1"):
        assert sum(words in line for line in screen) == 1, words
    # Nothing of the first run goes on.
    build_trainer(tiny_config(*QUIET, output="second")).train()
    assert (tmp_path / "run/log.txt").read_text().splitlines() == screen
    log = (tmp_path / "second/log.txt").read_text()
    assert log.count("training on 12 images") == 1
    assert log == capsys.readouterr().err


def test_the_logging_of_the_program_is_respected(tiny_config, tmp_path, begin_program, capsys):
    logger = begin_program()
    own = logging.FileHandler(tmp_path / "own.txt")
    logging.getLogger().addHandler(own)
    logger.setLevel(logging.INFO)
    build_trainer(tiny_config(*QUIET)).train()
    own.close()
    assert capsys.readouterr().err == ""
    lines = (tmp_path / "own.txt").read_text().splitlines()
    assert sum("training on 12 images" in line for line in lines) == 1
    assert len((tmp_path / "run/log.txt").read_text().splitlines()) == len(lines)


def test_a_log_file_of_the_program_has_no_line_twice(tiny_config, tmp_path, begin_program):
    logger = begin_program()
    (tmp_path / "run").mkdir()
    own = logging.FileHandler(tmp_path / "run/log.txt")
    logger.addHandler(own)
    logger.setLevel(logging.INFO)
    build_trainer(tiny_config(*QUIET)).train()
    logger.removeHandler(own)
    own.close()
    assert (tmp_path / "run/log.txt").read_text().count("iter: 0/1") == 1


def test_a_level_of_the_program_stays(tiny_config, tmp_path, begin_program, capsys):
    logger = begin_program()
    logger.setLevel(logging.WARNING)
    build_trainer(tiny_config(*QUIET)).train()
    assert capsys.readouterr().err == ""
