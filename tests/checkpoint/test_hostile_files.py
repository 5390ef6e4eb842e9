"""No file of weights runs code, writes, starts a process or takes much memory; each is told why."""

import importlib.util
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

HERE = Path(__file__).parent


def _hostile():
    spec = importlib.util.spec_from_file_location("hostile", HERE / "hostile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hostile = _hostile()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    for name, (content, _) in (hostile.FILES | hostile.HARMLESS).items():
        (folder / name).write_bytes(content)
    good = folder / "good"
    good.mkdir()
    torch.save(hostile.TENSOR, good / "new.pth")
    torch.save(hostile.TENSOR, good / "legacy.pth", _use_new_zipfile_serialization=False)
    (good / "numpy.pkl").write_bytes(pickle.dumps({"w": torch.ones(2).numpy()}))
    safetensors.torch.save_file(hostile.TENSOR, good / "some.safetensors")
    return folder


@pytest.fixture(scope="module")
def outcomes(folder):
    """What came of every file, all read by one process under guard."""
    process = subprocess.run(
        [sys.executable, HERE / "read_under_guard.py", folder],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", hostile.FILES)
def test_a_hostile_file_is_refused_with_the_reason_and_does_nothing(name, outcomes):
    outcome = outcomes[name]
    assert outcome["violations"] == []
    assert "error" in outcome, outcome
    assert name in outcome["error"]
    assert re.search(hostile.FILES[name][1], outcome["error"]), outcome["error"]


@pytest.mark.parametrize("name", hostile.HARMLESS)
def test_a_file_that_only_looks_dangerous_is_read_without_doing_anything(name, outcomes):
    assert outcomes[name] == {"value": hostile.HARMLESS[name][1], "violations": []}


def test_no_file_and_no_process_appeared(folder, outcomes):
    expected = {*hostile.FILES, *hostile.HARMLESS, "good"}
    assert {path.name for path in folder.iterdir()} == expected


def test_reading_them_all_took_little_memory(outcomes):
    assert outcomes["memory"] < 300_000  # kilobytes


def test_the_guard_sees_what_it_forbids(outcomes):
    assert outcomes["guard"]["violations"] == ["os.system (b'true',)"]


def test_the_command_in_the_files_works_when_pickle_reads_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(hostile.FILES["os_system.pkl"][0])
    assert (tmp_path / "planted").exists()
