import errno
import io
import os

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from detlite.data.image_io import ImageReader, PassingReadError, may_pass, read_image
from detlite.errors import ConfigError, DataError


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
    def fail(path, flags):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("detlite.data.image_io._open_at_once", fail)
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
    opened = []

    def open_at_once(path, flags):
        opened.append(path)
        return os.open(path, flags)

    monkeypatch.setattr("detlite.data.image_io._open_at_once", open_at_once)
    read_image(path)
    assert opened == [str(path)]


def encoded(picture, **options):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subsampling": 0, "quality": 95},
        {"restart_marker_blocks": 2},
        {"progressive": True},
        {"mode": "L"},
        {"mode": "CMYK"},
    ],
)
@pytest.mark.parametrize("end", [b"\xff\xd9", b""])
def test_a_jpeg_cut_in_half_is_found_also_with_an_end_marker_behind_it(tmp_path, options, end):
    noise = np.random.default_rng(1).integers(0, 256, (12, 18, 3), dtype=np.uint8)
    picture = Image.fromarray(cv2.resize(noise, (170, 130))).convert(options.pop("mode", "RGB"))
    data = encoded(picture, **options)
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    read_image(path)
    scan = data.index(b"\xff\xda")
    for share in (0.2, 0.5):
        path.write_bytes(data[: int(scan + 20 + share * (len(data) - scan))] + end)
        with pytest.raises(PassingReadError, match=r"a\.jpg' is broken"):
            read_image(path)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_gray_picture_is_whole_and_a_turned_one_that_is_cut_is_not(tmp_path, capfd, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    Image.new("RGB", (70, 50), (128, 128, 128)).save(path, exif=exif)
    assert (read_image(path) == 128).all()
    assert capfd.readouterr().err == ""
    colors = np.random.default_rng(1).integers(140, 256, (50, 70, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(colors), exif=exif)
    path.write_bytes(data[: len(data) * 2 // 3] + b"\xff\xd9")
    with pytest.raises(PassingReadError, match="is broken"):
        read_image(path)


def test_a_png_whose_pixels_were_changed_is_found_by_its_checksum(picture, tmp_path):
    path = tmp_path / "a.png"
    picture.save(path, compress_level=0)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(PassingReadError, match="checksum"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "bmp", "webp", "gif"])
def test_one_limit_of_pixels_holds_for_every_format(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.new("L", (40, 30), 7).save(path)
    with pytest.raises(DataError, match=r"40 x 30 .* data\.max_pixels is 1,199") as caught:
        read_image(path, max_pixels=1199)
    assert not may_pass(caught.value)
    assert read_image(path, max_pixels=1200).shape == (3, 30, 40)


@pytest.mark.parametrize("suffix", ["png", "tiff", "jpg"])
def test_the_limit_takes_the_place_of_pillows(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.new("L", (40, 30), 7).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(path).shape == (3, 30, 40)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.datasets
@pytest.mark.parametrize("name", ["huge-png/ortho.png", "hostile/jpg30000.jpg"])
def test_a_file_that_claims_too_many_pixels_is_refused_before_it_is_decoded(
    cases_dir, monkeypatch, name
):
    monkeypatch.setattr(cv2, "imdecode", None)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    with pytest.raises(DataError, match=r"data\.max_pixels is 64,000,000") as caught:
        read_image(cases_dir / name)
    assert "DOS" not in str(caught.value)


@pytest.mark.datasets
def test_a_key_gives_the_range_of_twelve_bit_images_and_a_warning_asks_for_it(
    cases_dir, caplog, monkeypatch
):
    monkeypatch.setattr("detlite.data.value_range._warned", [])
    path = cases_dir / "twelve-bit-images/scan.png"
    assert read_image(path).max() < 16
    read_image(path)
    (record,) = caplog.records  # once in a process
    assert "data.image_range=[0,4095]" in record.getMessage()
    values = np.asarray(Image.open(path)).astype(float)
    image = read_image(path, image_range=(0, 4095))
    assert image[2].numpy().tolist() == (values * 255 / 4095).round().tolist()
    assert len(caplog.records) == 1


def test_the_range_holds_for_color_and_for_floating_point_numbers(tmp_path):
    deep = np.random.default_rng(0).integers(0, 4096, (10, 20, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), deep[:, :, ::-1])
    image = read_image(tmp_path / "a.png", image_range=(0, 4095))
    expected = (deep * (255 / 4095)).round()
    assert image.permute(1, 2, 0).tolist() == expected.tolist()
    Image.fromarray(np.array([[-1, 20, 30, 99, np.nan]], np.float32)).save(tmp_path / "a.tiff")
    image = read_image(tmp_path / "a.tiff", image_range=(20, 40))
    assert image[0].tolist() == [[0, 0, 128, 255, 0]]


@pytest.mark.parametrize("values", [(9, 9), (5, 1), (0, float("inf")), (float("nan"), 1)])
def test_a_range_that_is_none_is_refused(values):
    with pytest.raises(ConfigError, match=r"data\.image_range"):
        ImageReader(image_range=values)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize("data", [EPS, b"P6 1 1 255 abc", b"RIFF\x04\0\0\0WAVE", b"8BPS"])
def test_only_documented_formats_are_opened(tmp_path, monkeypatch, data):
    monkeypatch.setattr("subprocess.Popen", None)
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(DataError, match=r"not an image of a known format.*JPEG, PNG"):
        read_image(tmp_path / "a.jpg")


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "sparse.jpg").touch()
    os.truncate(tmp_path / "sparse.jpg", 1 << 40)
    for path in ("/dev/zero", *tmp_path.iterdir()):
        with pytest.raises(DataError, match="cannot read image file") as caught:
            read_image(path)
        assert not may_pass(caught.value)


@pytest.mark.parametrize("name", ["a\0b.jpg", "a\ud800.jpg"])
def test_a_name_that_no_file_can_have_is_a_data_error(name):
    with pytest.raises(DataError, match="cannot read image file"):
        read_image(name)


def test_a_name_may_hold_any_bytes(picture, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\xff.png")
    with open(path, "wb") as file:
        picture.save(file, "png")
    assert read_image(path).shape == (3, 50, 90)
