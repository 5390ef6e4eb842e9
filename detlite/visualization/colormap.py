"""One color a class, told apart with normal vision and by color-blind people.

The first seven are those of Okabe and Ito (https://jfly.uni-koeln.de/color/) without black, which
is lost on photographs. Each further color is, of all strong colors, the one farthest from those
before it, as the worst of four viewers sees it: one with normal vision, one without red, one
without green and one without blue receptors (Machado et al. 2009, severity 1). The distance is the
Euclidean one in Oklab (https://bottosson.github.io/posts/oklab/).
"""

import functools

import numpy as np

Color = tuple[int, int, int]

# Colors repeat after this many classes; by then they differ too little for any viewer.
PALETTE_SIZE = 96

# Ordered so that the first few, which small data sets use, differ most.
_OKABE_ITO = (
    (213, 94, 0),
    (86, 180, 233),
    (240, 228, 66),
    (0, 158, 115),
    (204, 121, 167),
    (0, 114, 178),
    (230, 159, 0),
)

_VIEWERS = np.array(
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ],
    ]
)

_LMS_FROM_RGB = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_OKLAB_FROM_LMS = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def class_color(class_index: int) -> Color:
    """The RGB color of a class, 0 to 255 each; the same in every run."""
    return _palette()[class_index % PALETTE_SIZE]


def text_color(background: Color) -> Color:
    """Black or white, whichever contrasts more; at least 4.5 to 1 on every color (WCAG 2 AA)."""
    luminance = float(_linear(np.array(background)) @ (0.2126, 0.7152, 0.0722))
    # The two contrasts, (L + 0.05) / 0.05 and 1.05 / (L + 0.05), are equal at this luminance.
    return (0, 0, 0) if luminance + 0.05 > (1.05 * 0.05) ** 0.5 else (255, 255, 255)


@functools.cache
def _palette() -> list[Color]:
    candidates = _strong_colors()
    seen = _as_seen(candidates)
    palette = list(_OKABE_ITO)
    to_palette = _distance(seen[:, None], _as_seen(np.array(palette))[None]).min(axis=1)
    while len(palette) < PALETTE_SIZE:
        farthest = int(to_palette.argmax())
        red, green, blue = candidates[farthest].tolist()
        palette.append((red, green, blue))
        to_palette = np.minimum(to_palette, _distance(seen, seen[farthest]))
    return palette


def _strong_colors() -> np.ndarray:
    """RGB colors (C, 3) that stand out on a photograph: neither dark nor greyish."""
    steps = np.linspace(0, 255, 9).round().astype(int)
    rgb = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness, a, b = _oklab(_linear(rgb)).T
    return rgb[(lightness > 0.45) & (np.hypot(a, b) > 0.08)]


def _as_seen(rgb: np.ndarray) -> np.ndarray:
    """RGB colors (C, 3) as each of the four viewers sees them, in Oklab (C, 4, 3)."""
    return _oklab(np.einsum("vij,cj->cvi", _VIEWERS, _linear(rgb)).clip(0, 1))


def _distance(seen: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Distance (...) of colors (..., 4, 3) for the viewer who tells them apart the least."""
    return np.linalg.norm(seen - other, axis=-1).min(axis=-1)


def _linear(rgb: np.ndarray) -> np.ndarray:
    """SRGB (0 to 255) without its gamma: linear light in [0, 1]."""
    value = rgb / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _oklab(linear_rgb: np.ndarray) -> np.ndarray:
    return np.cbrt(linear_rgb @ _LMS_FROM_RGB.T) @ _OKLAB_FROM_LMS.T
