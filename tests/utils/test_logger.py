import logging

from detlite.utils.logger import close_logger, setup_logger


def test_names_that_are_no_utf8_are_logged_to_the_terminal_and_the_file(tmp_path, capsys):
    setup_logger(tmp_path)
    logging.getLogger("detlite.x").error("cannot read %s", "caf\udce9.jpg")
    close_logger()
    assert "caf\\udce9.jpg" in capsys.readouterr().err
    assert "caf\\udce9.jpg" in (tmp_path / "log.txt").read_text(encoding="utf-8")
