"""Detect objects on images, or classify them, with a trained model."""

import numbers
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import Any, overload

import torch

from ..checkpoint import (
    Format,
    LoadOptions,
    PeerWeights,
    class_names_of,
    export_weights,
    load_pretrained,
    own_weights,
    read_pretrained,
)
from ..checkpoint.interop import CLASSIFIER_TENSORS
from ..config.loader import load_config, parse_config
from ..config.schema import Config
from ..data import ImageReader, build_transforms, transform_sample
from ..errors import CheckpointError
from ..modeling import META_ARCH_REGISTRY, MetaArch, build_meta_arch
from ..registry import Block
from ..visualization import Found, found_in
from .device import select_device
from .image_input import ImageLike, as_image_tensor, images_of, is_one_image
from .precision import autocast, choose_precision, memory_format

# What an image that nothing is known of has, so that transforms of boxes find some.
_NO_BOXES = {"boxes": torch.zeros(0, 4), "classes": torch.zeros(0, dtype=torch.int64)}


class Predictor:
    """A model from a checkpoint of detlite, which needs nothing else, or from a peer's weights.

    Args:
        weights: A path, a URL, or a published name such as ``detectron2://...``.
        config: Of the model, as a path or as it is, for the weights of another framework, which
            do not say it; a checkpoint of detlite uses its own.
        class_names: Of the model, for weights that do not say them; of 80 or 91 classes they are
            taken to be COCO's.
        device: "auto" takes a GPU if there is one.
        batch_size: Images at a time, which does not change what is found (but with the model's
            ``independent_images: false``).
        score_thresh: Detections that score less are left out; those below the
            ``score_thresh`` of the model's postprocessor always are. For detectors only.
        trust_imports: Run the Python files that the checkpoint's config imports, for a model with
            components of a project.

    Attributes:
        config: The config that the model was trained with.
        model: The model.
        class_names: The names of its classes.
        precision: Of the forward pass, from ``test.precision``; another may be assigned.

    Raises:
        CheckpointError: The file cannot be read, or does not hold the whole model.
        ConfigError: Its config needs components that are not there.
        ValueError: The score threshold is not in [0, 1], or the model is a classifier; or the batch
            size is not an integer of 1 or more.
    """

    def __init__(
        self,
        weights: str | PathLike[str],
        *,
        config: Config | str | PathLike[str] | None = None,
        class_names: Sequence[str] | None = None,
        device: str = "auto",
        batch_size: int = 1,
        score_thresh: float | None = None,
        trust_imports: bool = False,
    ) -> None:
        peer = read_pretrained(weights)
        self.config = _config_of(peer, config, trust_imports)
        block = self.config.model
        names = class_names or class_names_of(
            peer.weights, block.weights_class_names or peer.class_names
        )
        # The last layer of a classifier is no head of a detector.
        no_head = () if _task_of(block) == "classification" else CLASSIFIER_TENSORS
        if not any(n.startswith("head.") and n not in no_head for n in peer.weights):
            raise CheckpointError(
                f"{weights} holds a {peer.kind} and no head, so it detects nothing before it is "
                "trained; name it in model.weights of a config and train that"
            )
        if names is None:
            raise CheckpointError(
                f"{weights} does not name its classes; list them in order in "
                "model.weights_class_names"
            )
        self.class_names: tuple[str, ...] = tuple(names)
        self.device = select_device(device)
        self.model = build_meta_arch(block, self.class_names)
        options = LoadOptions(class_names=block.weights_class_names, complete=True)
        load_pretrained(self.model, peer, names, model_block=block, options=options)
        asked = {"test.precision": self.config.test.precision}
        self.precision = choose_precision(asked, self.device, on_all_ranks=False)["test.precision"]
        layout = memory_format(self.config.train.channels_last, self.precision, self.device)
        self.model.to(self.device, memory_format=layout).eval()  # type: ignore[call-overload]
        self.transforms = build_transforms(self.config.data.test_transforms)
        self.reader = ImageReader.of(self.config.data)
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size must be an integer >= 1, got {batch_size!r}")
        self.batch_size = batch_size
        self._check(score_thresh)
        self.score_thresh = score_thresh

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, images: ImageLike, *, score_thresh: float | None = None
    ) -> Any: ...
    @overload
    def __call__(
        self, images: Iterable[ImageLike], *, score_thresh: float | None = None
    ) -> list[Any]: ...
    def __call__(
        self, images: ImageLike | Iterable[ImageLike], *, score_thresh: float | None = None
    ) -> Any:
        """Detect objects, or classify images.

        Args:
            images: One image, or several in a list, an iterator or a folder, whose images are taken
                in the order of their names. An image is a path, a Pillow image, a uint8 RGB array
                (H, W, 3) or tensor (3, H, W); gray ones have one channel or are (H, W), a fourth
                channel is alpha and dropped.
            score_thresh: Instead of the predictor's.

        Returns:
            For each image pred_boxes (D, 4), scores (D,) and pred_classes (D,) by falling score,
            in the image's own pixels, on the CPU. Of a classifier scores (K,), the probabilities of
            ``class_names``, float32 on the CPU.

        Raises:
            DataError: A file cannot be read.
            ValueError: There is no image, or an array or tensor is none.
        """
        if is_one_image(images):
            return next(self.stream([images], score_thresh=score_thresh))  # type: ignore[list-item]
        results = list(self.stream(images, score_thresh=score_thresh))  # type: ignore[arg-type]
        if not results:
            raise ValueError("there is no image to predict on: the list or iterator is empty")
        return results

    def stream(
        self, images: Iterable[ImageLike], *, score_thresh: float | None = None
    ) -> Iterator[Any]:
        """The same for any number of images, ``batch_size`` at a time, in their order."""
        self._check(score_thresh)
        thresh = self.score_thresh if score_thresh is None else score_thresh
        for found in self._batches(images_of(images)):
            yield found[found.scores >= thresh] if thresh is not None else found

    def _batches(self, images: Iterable[ImageLike]) -> Iterator[Any]:
        batch: list[dict[str, Any]] = []
        for image in images:
            batch.append(self._sample(image))
            if len(batch) == self.batch_size:
                yield from self._run(batch)
                batch = []
        if batch:
            yield from self._run(batch)

    def export(self, file_format: Format, path: str | PathLike[str]) -> list[str]:
        """Write the model's weights in the form of another framework.

        Args:
            file_format: "detectron2", "torchvision", "mmdet" or "safetensors"; see
                ``detlite.checkpoint.export_weights``.
            path: The file.

        Returns:
            Settings of this model that are not the framework's own, a line each.

        Raises:
            CheckpointError: The format has no place for a part of the model.
        """
        return export_weights(
            own_weights(self.model, self.config.to_yaml(), "the model"), file_format, path
        )

    def _run(self, batch: list[dict[str, Any]]) -> Iterator[Found]:
        with torch.inference_mode(), autocast(self.device, self.precision):
            for output in self.model(batch):
                yield found_in(output).to("cpu")

    def _check(self, score_thresh: float | None) -> None:
        if score_thresh is None:
            return
        if not isinstance(score_thresh, numbers.Real) or not 0 <= score_thresh <= 1:
            raise ValueError(f"score_thresh must be a number in [0, 1], got {score_thresh!r}")
        if _task_of(self.config.model) == "classification":
            raise ValueError("score_thresh is for detectors; a classifier gives all its scores")

    def _sample(self, image: ImageLike) -> dict[str, Any]:
        pixels = as_image_tensor(image, self.reader)
        height, width = pixels.shape[-2:]
        record = {
            "image": pixels,
            "file_name": str(image) if isinstance(image, str | PathLike) else "",
            "image_id": 0,
            "height": height,
            "width": width,
        }
        if _task_of(self.config.model) != "classification":
            record.update(_NO_BOXES)
        return transform_sample(record, self.transforms)


def _task_of(block: Block) -> str:
    return getattr(META_ARCH_REGISTRY.get(block.name), "task", MetaArch.task)


def _config_of(
    peer: PeerWeights, config: Config | str | PathLike[str] | None, trust_imports: bool
) -> Config:
    if peer.config is not None:
        title = f"the config within {peer.source}"
        return parse_config(peer.config, title, trust_imports=trust_imports)
    if config is None:
        raise CheckpointError(
            f"{peer.source} holds a {peer.kind}, which does not say the config of its model; give "
            "the config of such a model, see configs/retinanet/README.md "
            "(Predictor(weights, config=...), or --config-file)"
        )
    return config if isinstance(config, Config) else load_config(config)
