import os

import numpy as np
import pytest

from detlite.data import read_image
from detlite.utils.picture_file import write_picture

PICTURE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


@pytest.mark.parametrize("name", [b"a.png", b"caf\xe9/\xff\xfe.png", "ä漢.png".encode()])
def test_a_picture_is_written_under_a_name_of_any_bytes(tmp_path, name):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
    write_picture(path, PICTURE)
    assert read_image(path).permute(1, 2, 0).tolist() == PICTURE.tolist()


@pytest.mark.parametrize("name", ["a.unknown", "a", "file/a.png", "x" * 300 + ".png"])
def test_what_cannot_be_written_is_an_os_error(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"a|x"):
        write_picture(tmp_path / name, PICTURE)


def test_a_picture_that_its_format_cannot_hold_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="wide"):
        write_picture(tmp_path / "wide.jpg", np.zeros((1, 70_000, 3), np.uint8))
