import numpy as np
import pytest
import torch
from PIL import Image

from detlite.engine.image_input import as_image_tensor, images_of, is_one_image
from detlite.errors import DataError

GRAY = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
RGB = np.repeat(GRAY[:, :, None], 3, axis=2)
RGBA = np.concatenate([RGB, RGB[:, :, :1] // 2], axis=2)


@pytest.mark.parametrize(
    "image",
    [
        RGB,
        GRAY,
        GRAY[:, :, None],
        RGBA,
        torch.from_numpy(GRAY),
        torch.from_numpy(GRAY)[None],
        torch.from_numpy(RGBA).permute(2, 0, 1),
        np.asarray(Image.fromarray(RGB)),  # cannot be written to; a warning is an error here
        Image.fromarray(RGB),
        Image.fromarray(GRAY),
        Image.fromarray(RGBA),
        Image.fromarray(GRAY).convert("P"),
        Image.fromarray(GRAY.astype(np.uint16) * 257),
    ],
)
def test_every_form_of_an_image_is_taken(image):
    assert is_one_image(image)
    assert as_image_tensor(image).permute(1, 2, 0).tolist() == RGB.tolist()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "got NoneType"),
        (np.zeros((0, 5, 3), np.uint8), r"got \(0, 5, 3\) uint8"),
        (np.zeros((3, 40, 50), np.uint8), r"got \(3, 40, 50\) uint8"),
        (np.zeros((2, 40, 50, 3), np.uint8), r"a list of them for several; got \(2, 40, 50, 3\)"),
        (np.zeros((40, 50, 3)), r"got \(40, 50, 3\) float64; scale it to 0\.\.255"),
        (torch.zeros(3, 0, 5, dtype=torch.uint8), r"got \(3, 0, 5\) torch\.uint8"),
        (Image.new("RGB", (0, 5)), "0 x 5"),
    ],
)
def test_what_is_no_image_is_refused_with_its_shape(image, message):
    with pytest.raises(ValueError, match=f"an image is a path.*{message}"):
        as_image_tensor(image)


def test_a_pillow_image_is_not_changed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGBA).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        assert as_image_tensor(image).shape == (3, 40, 60)  # as Pillow shows it
        assert image.mode == "RGBA"


@pytest.mark.parametrize("images", [None, b"a.jpg", 3, {}])
def test_what_is_neither_one_image_nor_several_is_refused(images):
    assert not is_one_image(images)
    with pytest.raises(ValueError, match=f"got {type(images).__name__}"):
        images_of(images)


def test_an_empty_path_is_no_folder():
    assert is_one_image("")


def test_a_folder_is_its_images_by_name(tmp_path):
    for name in ("b/x.png", "a.jpg", "notes.txt", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in images_of(tmp_path)] == ["a.jpg", "x.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image in the folder"):
        images_of(str(tmp_path / "empty"))
