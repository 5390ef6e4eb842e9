"""Boxes, class names and scores drawn on an image."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from torch import Tensor

from ..structures import Instances
from .colormap import Color, class_color
from .grid import make_grid
from .legend import add_legend
from .objects import DrawnObjects
from .placement import hidden_share, place_labels
from .text import Style, draw_plate, elide, plate_size

Labels = Literal["auto", "all", "none"]

# Where labels hide more than this of the boxes, they give way to a legend; not where they are few,
# whose labels are read one by one.
_MAX_HIDDEN, _FEW = 0.3, 20


class Visualizer:
    """Draws the objects of one image.

    Lines and letters grow with the image. Boxes are drawn first and labels over them, each from
    the lowest score to the highest, so that the best detection lies on top; ground truth is drawn
    from the largest box to the smallest. Every drawing starts from the image as it was given.

    Args:
        image: (H, W, 3) uint8 RGB array or (3, H, W) uint8 RGB tensor; never changed.
        class_names: A class without a name here is called by its index, "class 7".
        score_thresh: Detections that score less are left out.
        min_side: Enlarge an image whose shorter side has fewer pixels by the least whole factor
            that reaches them, because letters cannot shrink with it and would cover it. 0 keeps
            every image's size.
        scale: Makes lines and letters larger or smaller than usual.
        labels: "all" writes the class and score of each object beside its box, "none" draws boxes
            alone. "auto" writes them too, but where there are so many on so little space that they
            would hide the objects: then a legend of the classes below the picture takes their
            place, and the picture becomes higher.
        show_scores: Whether scores are part of the labels.
        line_width: Of boxes, in pixels; None: what fits the picture.

    Raises:
        ValueError: The image has another type or shape, or there are no such labels or lines.
    """

    def __init__(
        self,
        image: np.ndarray | Tensor,
        class_names: Sequence[str] | None = None,
        *,
        score_thresh: float = 0.0,
        min_side: int = 0,
        scale: float = 1.0,
        labels: Labels = "auto",
        show_scores: bool = True,
        line_width: int | None = None,
    ) -> None:
        if labels not in get_args(Labels):
            raise ValueError(f"labels must be one of {get_args(Labels)}, got {labels!r}")
        if line_width is not None and line_width < 1:
            raise ValueError(f"line_width must be at least 1, got {line_width}")
        pixels = _to_array(image)
        self._image_size = (pixels.shape[0], pixels.shape[1])
        self._factor = max(1, -(-min_side // min(self._image_size)))
        height, width = (side * self._factor for side in self._image_size)
        # Nearest: a pixel becomes a square, and shows what the network was given.
        self._image = cv2.resize(
            np.ascontiguousarray(pixels), (width, height), interpolation=cv2.INTER_NEAREST
        )
        self._style = Style.for_image(height, width, scale)
        if line_width is not None:
            self._style = replace(self._style, line_width=line_width)
        self.labels = labels
        self.show_scores = show_scores
        self.class_names = list(class_names or [])
        self.score_thresh = score_thresh

    def draw(self, instances: Instances) -> np.ndarray:
        """Draw detections, or ground truth where there are no ``pred_boxes``.

        Boxes that are not finite, inverted or wholly outside the image are skipped, with a warning
        that counts them.

        Args:
            instances: ``pred_boxes`` with ``scores`` and ``pred_classes``, or ``gt_boxes`` with
                ``gt_classes``, on any device. Only the boxes must be there.

        Returns:
            A new (H, W, 3) uint8 RGB array, larger than the image where ``min_side`` asks for it,
            higher where it has a legend.

        Raises:
            ValueError: There are no boxes, or they refer to an image of another size.
        """
        return self._paint(self._read(instances))

    def draw_comparison(self, ground_truth: Instances, predictions: Instances) -> np.ndarray:
        """Draw ground truth on the left and predictions on the right, under titles that count them.

        Returns:
            (H, W, 3) uint8 RGB, a little more than twice as wide as the image.
        """
        sides = {"ground truth": self._read(ground_truth), "predictions": self._read(predictions)}
        titles = [f"{title} ({len(objects)})" for title, objects in sides.items()]
        return make_grid([self._paint(objects) for objects in sides.values()], 2, titles=titles)

    def draw_classes(
        self, scores: Tensor | None = None, *, gt_class: int | None = None, limit: int = 3
    ) -> np.ndarray:
        """Write the likeliest classes into the upper left corner, above them the true one.

        Args:
            scores: (K,) probabilities, on any device; those below ``score_thresh`` are left out,
                but for the best.
            gt_class: The true class, on a plate of its own, with "true:" before it.
            limit: How many classes at most.

        Returns:
            A new (H, W, 3) uint8 RGB array, larger than the image where ``min_side`` asks for it.
        """
        picture = self._image.copy()
        lines = [] if gt_class is None else [(gt_class, "true: ", "")]
        if scores is not None:
            best = scores.detach().float().cpu().sort(descending=True, stable=True)
            for place, (score, k) in enumerate(zip(*map(Tensor.tolist, best), strict=True)):
                if place < limit and (place == 0 or score >= self.score_thresh):
                    lines.append((k, "", f" {score:.2f}"))
        y, size = 0, self._style.text_size
        for k, before, after in lines:
            text = elide(before + self._class_name(k), size, picture.shape[1], keep=after)
            height = plate_size(text, size)[1]
            if text and y + height <= picture.shape[0]:
                draw_plate(picture, text, (0, y), size, class_color(k))
            y += height
        return picture

    def _read(self, instances: Instances) -> DrawnObjects:
        if instances.image_size != self._image_size:
            raise ValueError(
                f"boxes refer to an image of (height, width) {instances.image_size}, "
                f"this one is {self._image_size}"
            )
        return DrawnObjects.read(instances, self.score_thresh)

    def _paint(self, objects: DrawnObjects) -> np.ndarray:
        picture = self._image.copy()
        boxes = objects.boxes * self._factor
        classes = [0] * len(objects) if objects.classes is None else objects.classes.tolist()
        colors = [class_color(c) for c in classes]
        for box, color in zip(boxes, colors, strict=True):
            _draw_box(picture, box, color, self._style.line_width)

        if self.labels == "none":
            return picture
        labels = self._labels(objects)
        text_size = self._style.text_size
        sizes = np.array([plate_size(label, text_size) if label else (0, 0) for label in labels])
        outer = boxes + np.array([-1, -1, 1, 1]) * (self._style.line_width // 2)
        # The last is the most important and chooses its place first.
        corners = place_labels(outer[::-1], sizes[::-1].reshape(-1, 2), picture.shape[:2])[::-1]
        if self._is_too_dense(boxes, corners, sizes.reshape(-1, 2)):
            entries = [
                (f"{self._class_name(k)} ({count})", class_color(k))
                for k, count in Counter(classes).most_common()
            ]
            return add_legend(picture, entries, text_size)
        for label, corner, color in zip(labels, corners, colors, strict=True):
            if label:
                draw_plate(picture, label, corner, text_size, color)
        return picture

    def _is_too_dense(
        self, boxes: np.ndarray, corners: Sequence[tuple[int, int]], sizes: np.ndarray
    ) -> bool:
        if self.labels != "auto" or len(boxes) <= _FEW:
            return False
        return hidden_share(boxes, corners, sizes, self._image.shape[:2]) > _MAX_HIDDEN

    def _labels(self, objects: DrawnObjects) -> list[str]:
        """Such as "RBC 0.97", the name shortened to fit; "" where no text fits the image."""
        height, width = self._image.shape[:2]
        text_size = self._style.text_size
        if plate_size("", text_size)[1] > height:
            return [""] * len(objects)
        names = [""] * len(objects)
        if objects.classes is not None:
            names = [self._class_name(c) for c in objects.classes.tolist()]
        scores = [""] * len(objects)
        if objects.scores is not None and self.show_scores:
            scores = [f" {score:.2f}" for score in objects.scores.tolist()]
        return [elide(n, text_size, width, keep=s) for n, s in zip(names, scores, strict=True)]

    def _class_name(self, class_index: int) -> str:
        if 0 <= class_index < len(self.class_names):
            # A line break would be drawn as a missing character.
            return " ".join(str(self.class_names[class_index]).split())
        return f"class {class_index}"


def _to_array(image: np.ndarray | Tensor) -> np.ndarray:
    """The pixels as an (H, W, 3) uint8 array, which may share the image's memory."""
    if isinstance(image, Tensor):
        fits = image.dtype == torch.uint8 and image.ndim == 3 and image.shape[0] == 3
        pixels = image.detach().cpu().permute(1, 2, 0).numpy() if fits else None
    else:
        fits = isinstance(image, np.ndarray) and image.dtype == np.uint8
        pixels = image if fits and image.ndim == 3 and image.shape[2] == 3 else None
    if pixels is None or not pixels.size:
        came = type(image).__name__
        if hasattr(image, "shape"):
            came += f" of {image.dtype} and shape {tuple(image.shape)}"
        raise ValueError(
            f"image must be an (H, W, 3) uint8 array or a (3, H, W) uint8 tensor, got {came}"
        )
    return pixels


def _draw_box(picture: np.ndarray, box: np.ndarray, color: Color, line_width: int) -> None:
    """Draw a box (4,) XYXY with the middle of its line on its edge.

    An edge on the image's border moves inwards until all of its line is seen; an edge beyond the
    border is not seen at all, so that the box shows that it goes on.
    """
    height, width = picture.shape[:2]
    limits = np.array([width, height])
    # Far coordinates would overflow OpenCV's; two line widths beyond the border hide the line.
    low = box[:2].clip(-2 * line_width, None).round().astype(int)
    high = box[2:].clip(None, limits + 2 * line_width).round().astype(int) - 1
    inset = line_width // 2
    low = np.where(low >= 0, np.maximum(low, inset), low)
    high = np.where(high < limits, np.minimum(high, limits - 1 - inset), high)
    high = np.maximum(low, high)
    cv2.rectangle(picture, low.tolist(), high.tolist(), color, line_width)
