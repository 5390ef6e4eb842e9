"""Every tool answers a question about its command line, or a wrong one, before it imports torch."""

import pathlib
import re
import subprocess
import sys

import pytest

from detlite.cli.train import parser
from detlite.utils.cli import run_cli

TOOLS = sorted((pathlib.Path(__file__).parents[2] / "tools").glob("*.py"))

ASK_ALL = """
import contextlib, io, runpy, sys

for tool in sys.argv[1:]:
    for arguments in (["--help"], ["--no-such-option"]):
        sys.argv = [tool, *arguments]
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                runpy.run_path(tool, run_name="__main__")
            except SystemExit as end:
                code = end.code
        assert code == (0 if arguments == ["--help"] else 2), (tool, arguments, said.getvalue())
        assert "usage: " in said.getvalue(), (tool, arguments, said.getvalue())
        heavy = {"torch", "numpy", "cv2"} & {*sys.modules}
        assert not heavy, f"{tool} {arguments} has imported {heavy}"
"""


def test_help_and_a_wrong_option_are_answered_without_torch():
    command = [sys.executable, "-c", ASK_ALL, *map(str, TOOLS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(TOOLS) >= 10


MISTAKES = {
    "visualize": ["--output", "x"],
    "train_net": ["solver.max_iter=3"],
    "evaluate": ["--annotations", "a", "--results", "b", "--seed", "-1"],
}


def test_a_forgotten_argument_is_named_without_torch():
    program = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    assert not {"torch", "cv2"} & {*sys.modules}
"""
    words = {"visualize": "--input", "train_net": "--config-file", "evaluate": "--seed"}
    for tool in TOOLS:
        if tool.stem in MISTAKES:
            command = [sys.executable, "-c", program, str(tool), *MISTAKES[tool.stem]]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 2, done.stderr
            assert words[tool.stem] in done.stderr
            assert "Traceback" not in done.stderr


def test_an_option_of_another_tool_is_told_how_keys_are_written(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_net.py", "--config-file", "x.yaml", "--epochs", "3"])
    with pytest.raises(SystemExit):
        run_cli(lambda arguments: None, parser())
    assert re.search(r"--epochs.*key\.path=value", capsys.readouterr().err, re.DOTALL)


def test_what_is_printed_is_seen_at_once_through_a_pipe():
    program = """
import argparse, os
from detlite.utils.cli import run_cli

def main(arguments):
    print("a line")
    os._exit(0)  # without flushing what is buffered

run_cli(main, argparse.ArgumentParser())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a line\n", "")
