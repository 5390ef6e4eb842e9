"""The folder of a bundle: ``bundle.pth`` for the replay, a report and pictures for people."""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor

from ...structures import Instances
from ...utils.tables import fitted_table
from ...visualization import Visualizer, write_picture
from .bundle import Sample, StepBundle, write_bundle_file
from .statistics import TensorStats

# What marks pixels that are not finite; few photos have it.
MARK = (255, 0, 255)
_MAX_TOLD = 20
_MAX_STEM = 100

logger = logging.getLogger(__name__)


def write_bundle(bundle: StepBundle, root: str | os.PathLike[str]) -> Path:
    """Write ``iter_<iteration>_rank<rank>/`` under ``root``, whole or not at all.

    An earlier bundle of that name stays; this one is then numbered.

    Raises:
        CheckpointError: ``bundle.pth`` cannot be written.
        OSError: Another file cannot.
    """
    root = Path(root)
    name = f"iter_{bundle.iteration:07d}_rank{bundle.rank}"
    # The same name every time, so that the next one removes what a killed run has left.
    unfinished = root / f".unfinished_rank{bundle.rank}"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        write_bundle_file(bundle, unfinished)
        (unfinished / "report.txt").write_text(report(bundle), encoding="utf-8")
        _draw(bundle, unfinished / "images")
        folder, number = root / name, 1
        while folder.exists():
            number += 1
            folder = root / f"{name}_{number}"
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return folder


def bundles_of(root: str | os.PathLike[str], rank: int) -> list[Path]:
    """The bundles that a rank has written."""
    return [
        path
        for path in sorted(Path(root).glob(f"iter_*_rank{rank}*"))
        # Not those of rank 12 for rank 1.
        if path.name.partition("_rank")[2].partition("_")[0] == str(rank)
    ]


def file_names(samples: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of each sample; "?" where it has none."""
    return [str(sample.get("file_name", "?")) for sample in samples]


def report(bundle: StepBundle) -> str:
    """What a person wants to know of the step first."""
    losses = [
        [part, *(f"{float(value):.6g}" for value in losses.values())]
        for part, losses in enumerate(bundle.part_losses)
    ]
    whole = ["all, over all processes", *(f"{float(v):.6g}" for v in bundle.metrics.values())]
    groups = [[g["name"], f"{g['lr']:.6g}", g["parameters"]] for g in bundle.groups]
    norms = [
        [path or "(the model)", f"{norm['weight']:.5g}", f"{norm['gradient']:.5g}"]
        for path, norm in bundle.modules.items()
    ]
    sections = {
        "": f"Iteration {bundle.iteration}, rank {bundle.rank} of {bundle.world_size}, "
        f"{bundle.device}, {bundle.precision}, gradient scale {bundle.scale:g}\n"
        f"Not finite: {', '.join(bundle.why)}\n"
        "Which place it came from says: python tools/replay.py THIS_FOLDER",
        "Losses by part": fitted_table(
            [*losses, whole], ["part", *bundle.metrics], disable_numparse=True
        ),
        "Gradient norm": f"{float(bundle.gradient_norm):.6g}",
        "Weights and buffers that are not finite": _counts(bundle.bad_weights),
        "Gradients that are not finite": _counts(bundle.bad_gradients),
        "Images": "\n".join(_image_lines(bundle)),
        "Learning rates": fitted_table(
            groups, ["group", "lr", "parameters"], disable_numparse=True
        ),
        "Norms by module": fitted_table(
            norms, ["module", "weights", "gradients"], disable_numparse=True
        ),
    }
    return "\n".join(f"{title}\n{text}\n".lstrip() for title, text in sections.items())


def _counts(bad: dict[str, int]) -> str:
    lines = [f"{name}: {count} entries" for name, count in bad.items()]
    if len(lines) > _MAX_TOLD:
        lines[_MAX_TOLD:] = [f"and of {len(bad) - _MAX_TOLD} more"]
    return "\n".join(lines) or "none"


def _image_lines(bundle: StepBundle) -> list[str]:
    lines = []
    for part, samples in enumerate(bundle.parts):
        for sample, name in zip(samples, file_names(samples), strict=True):
            count = _truth_told(sample, bundle.class_names)
            bad = TensorStats.of(sample["image"]).non_finite
            mark = f", {bad} entries NOT FINITE" if bad else ""
            size = "x".join(map(str, sample["image"].shape))
            lines.append(f"part {part}: {name} (id {sample.get('image_id')}, {size}{count}{mark})")
    return lines


def _truth_told(sample: Sample, class_names: list[str]) -> str:
    truth = sample.get("instances")
    if isinstance(truth, Instances):
        return f", {len(truth)} boxes"
    shares = sample.get("gt_probs")
    if isinstance(shares, Tensor):
        named = zip(class_names, shares.tolist(), strict=False)
        return ", " + " + ".join(f"{share:.2f} {name}" for name, share in named if share)
    gt_class = sample.get("gt_class")
    if isinstance(gt_class, Tensor) and 0 <= int(gt_class) < len(class_names):
        return f", {class_names[int(gt_class)]}"
    return ""


def _draw(bundle: StepBundle, folder: Path) -> None:
    for part, samples in enumerate(bundle.parts):
        for i, (sample, name) in enumerate(zip(samples, file_names(samples), strict=True)):
            try:
                picture = Visualizer(
                    _pixels(sample["image"]), bundle.class_names, min_side=384
                ).draw(_truth(sample))
                stem = Path(name).stem[:_MAX_STEM] or "image"
                write_picture(folder / f"{part}_{i:02d}_{stem}.png", picture)
            except (ValueError, OSError, cv2.error) as error:
                # A project's images may be no pictures; the numbers are in bundle.pth.
                logger.warning("%s of the bundle cannot be drawn: %s", name, error)


def _pixels(image: Tensor) -> Tensor:
    """An image as uint8, with pixels that are not finite in the colour of ``MARK``."""
    image = image.detach().cpu()
    if image.dtype == torch.uint8 or not image.is_floating_point():
        return image.clamp(0, 255).to(torch.uint8)
    bad = image.isfinite().logical_not().any(dim=0)
    pixels = image.nan_to_num(nan=0.0).clamp(0, 255).to(torch.uint8)
    if pixels.ndim == 3 and pixels.shape[0] == len(MARK):
        pixels[:, bad] = torch.tensor(MARK, dtype=torch.uint8)[:, None]
    return pixels


def _truth(sample: Sample) -> Instances:
    truth = sample.get("instances")
    if isinstance(truth, Instances) and truth.has("gt_boxes"):
        return truth
    height, width = sample["image"].shape[-2:]
    return Instances((height, width), gt_boxes=torch.zeros(0, 4))
