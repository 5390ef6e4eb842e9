"""The command-line tools as functions."""

import importlib.util
import pathlib
import sys

import pytest

TOOLS = pathlib.Path(__file__).parents[2] / "tools"


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """Run a tool in this process; returns its exit code, stdout and stderr."""

    def run(name, *arguments):
        spec = importlib.util.spec_from_file_location(f"tool_{name}", TOOLS / f"{name}.py")
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        code = 0
        try:
            tool.run_cli(tool.main, tool.parser())
        except SystemExit as error:
            code = error.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
