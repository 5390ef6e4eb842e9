import pytest

from detlite.utils.file_io import resolve_path


@pytest.mark.parametrize(
    ("root", "path", "expected"),
    [
        ("/data", "bccd/images", "/data/bccd/images"),
        ("/data", "/elsewhere/images", "/elsewhere/images"),
        (None, "bccd/images", "datasets/bccd/images"),
        ("/data", "~/images", "/home/someone/images"),
    ],
)
def test_relative_paths_lie_under_the_data_root(monkeypatch, root, path, expected):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("DETLITE_DATASETS", raising=False)
    if root:
        monkeypatch.setenv("DETLITE_DATASETS", root)
    assert resolve_path(path) == expected
