import errno
import io
import os
import pathlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from detlite.data.image_io import PassingReadError, may_pass, read_image
from detlite.errors import DataError


@pytest.fixture
def picture():
    noise = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(noise, (90, 50), interpolation=cv2.INTER_CUBIC))


def to_tensor(image):
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tiff", "webp", "gif"])
def test_every_format_is_read_as_pillow_reads_it(picture, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    picture.save(path)
    image = read_image(path)
    assert image.dtype == torch.uint8
    assert image.shape == (3, 50, 90)
    with Image.open(path) as expected:
        assert torch.equal(image, to_tensor(expected))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_every_colour_mode_becomes_rgb(picture, tmp_path, mode):
    path = tmp_path / "a.png"
    picture.convert(mode).save(path)
    assert torch.equal(read_image(path), to_tensor(picture.convert(mode)))


def test_a_cmyk_jpeg_becomes_rgb(picture, tmp_path):
    path = tmp_path / "a.jpg"
    picture.convert("CMYK").save(path, quality=100)
    assert (read_image(path).int() - to_tensor(picture).int()).abs().float().mean() < 3


def test_a_palette_with_transparency_becomes_rgb(picture, tmp_path):
    path = tmp_path / "a.png"
    palette = picture.convert("P")
    palette.save(path, transparency=bytes(range(256)))
    assert torch.equal(read_image(path), to_tensor(palette))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    path = tmp_path / "a.png"
    deep = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(deep).save(path)
    assert read_image(path)[1].flatten().tolist() == list(range(256))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_turns_the_image_upright(picture, tmp_path, suffix, orientation):
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(path, exif=exif)
    assert read_image(path).shape[1:] == ((50, 90) if orientation < 5 else (90, 50))
    with Image.open(path) as image:
        assert torch.equal(read_image(path), to_tensor(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
def test_a_file_cut_short_is_an_error_that_names_it(picture, tmp_path, suffix, kept):
    buffer = io.BytesIO()
    picture.save(buffer, {"jpg": "JPEG"}.get(suffix, suffix))
    data = buffer.getvalue()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(data[: int(kept * len(data))])
    # Perhaps it is still being written.
    with pytest.raises(DataError if kept == 0.02 else PassingReadError, match=rf"cut\.{suffix}"):
        read_image(path)


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(picture, tmp_path):
    path = tmp_path / "a.jpg"
    picture.save(path)
    expected = read_image(path)
    path.write_bytes(path.read_bytes() + b"appended by a camera")
    assert torch.equal(read_image(path), expected)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "there is no image file"),
        (b"", "is empty"),
        (b"<html>not found</html>", "not an image of a known format"),
        (b"\xff\xd8 no jpeg \xff\xd9", "is not an image|is broken"),
    ],
)
def test_what_is_no_image_is_an_error_with_its_reason(tmp_path, data, reason):
    path = tmp_path / "a.jpg"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataError, match=reason) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(DataError, match="cannot read image file"):
        read_image(tmp_path)


def test_floating_point_images_are_refused(tmp_path):
    path = tmp_path / "a.tiff"
    Image.fromarray(np.ones((4, 4), np.float32)).save(path)
    with pytest.raises(DataError, match="32 bits a channel"):
        read_image(path)


@pytest.mark.parametrize(
    ("number", "passes"),
    [
        (errno.EIO, True),
        (errno.ESTALE, True),
        (errno.ETIMEDOUT, True),
        (errno.EMFILE, True),
        (errno.ENOENT, False),
        (errno.EACCES, False),
        (errno.ENAMETOOLONG, False),
    ],
)
def test_an_error_of_the_file_system_may_pass_or_not(tmp_path, monkeypatch, number, passes):
    def fail(path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pathlib.Path, "read_bytes", fail)
    with pytest.raises(DataError, match=r"a\.jpg") as caught:
        read_image(tmp_path / "a.jpg")
    assert isinstance(caught.value, PassingReadError) is passes
    assert may_pass(caught.value) is passes


@pytest.mark.parametrize("content", [b"<html>not found</html>", None])
def test_what_will_never_be_an_image_does_not_pass(tmp_path, content):
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_image(tmp_path / "a.jpg")
    assert not may_pass(caught.value)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_file_is_read_once(picture, tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a.{suffix}"
    picture.save(path)
    data, reads = path.read_bytes(), []
    path.unlink()

    def read(path):
        reads.append(path)
        return data

    monkeypatch.setattr(pathlib.Path, "read_bytes", read)
    read_image(path)
    assert reads == [path]
