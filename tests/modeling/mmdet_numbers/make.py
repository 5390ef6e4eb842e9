"""Writes numbers.json: what mmdetection's own code says of a few inputs.

    pip download --no-deps mmdet==3.3.0 && unzip mmdet-3.3.0-py3-none-any.whl -d mmdet_source
    python tests/modeling/mmdet_numbers/make.py mmdet_source

mmdetection needs mmcv, which must be compiled; the files that are run here need nothing of it, so
small stand-ins take the place of its registries.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path

import torch

from detlite.modeling.anchor_generators import GridAnchorGenerator

STRIDES = (8, 16, 32, 64, 128)
SIZE = (256, 320)


class InstanceData(types.SimpleNamespace):
    def __contains__(self, name):
        return hasattr(self, name)


class Registry:
    def register_module(self, *args, **kwargs):
        return lambda component: component

    def build(self, config):
        return self.components[config["type"]]()


def load_mmdet(folder):
    """The modules of mmdetection that hold what is compared, by their last names."""
    registry = Registry()

    def package(name, **content):
        module = sys.modules[name] = types.ModuleType(name)
        module.__path__ = []
        vars(module).update(content)

    package("mmengine")
    package("mmengine.structures", InstanceData=InstanceData)
    package("mmdet")
    package("mmdet.registry", TASK_UTILS=registry, MODELS=registry)
    mixins = types.SimpleNamespace(NiceRepr=object)
    package("mmdet.utils", util_mixins=mixins, ConfigType=dict)
    package("mmdet.structures")
    package("mmdet.structures.bbox", get_box_tensor=lambda boxes: boxes)
    for name in ("mmdet.models", "mmdet.models.losses", "mmdet.models.task_modules"):
        package(name)
    package("mmdet.models.task_modules.assigners")

    def load(name):
        path = Path(folder, *name.split(".")).with_suffix(".py")
        spec = importlib.util.spec_from_file_location(name, path)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    overlaps = load("mmdet.structures.bbox.bbox_overlaps")
    sys.modules["mmdet.structures.bbox"].bbox_overlaps = overlaps.bbox_overlaps
    assigners = "mmdet.models.task_modules.assigners"
    for name in ("assign_result", "base_assigner"):
        load(f"{assigners}.{name}")
    calculator = load(f"{assigners}.iou2d_calculator")
    registry.components = {"BboxOverlaps2D": calculator.BboxOverlaps2D}
    load("mmdet.models.losses.utils")
    return (
        load(f"{assigners}.atss_assigner"),
        load("mmdet.models.losses.gfocal_loss"),
        load("mmdet.models.losses.varifocal_loss"),
    )


def make_anchors(scale):
    """One square of ``scale`` strides on each cell, by level."""
    generator = GridAnchorGenerator(
        strides=STRIDES, base_size=scale, scales_per_octave=1, aspect_ratios=(1.0,), offset=0.5
    )
    grids = [(-(-SIZE[0] // stride), -(-SIZE[1] // stride)) for stride in STRIDES]
    return generator(grids, SIZE)


def draw_boxes(count, seed):
    generator = torch.Generator().manual_seed(seed)
    center = torch.rand(count, 2, generator=generator) * torch.tensor([SIZE[1], SIZE[0]])
    half = (8 * 20 ** torch.rand(count, 2, generator=generator)) / 2
    return torch.cat([center - half, center + half], dim=1)


def atss_cases(module):
    cases = []
    for scale, count, seed, top_k in ((8, 1, 0, 9), (8, 12, 1, 9), (4, 40, 2, 9), (8, 12, 3, 3)):
        levels = make_anchors(scale)
        boxes = draw_boxes(count, seed)
        result = module.ATSSAssigner(topk=top_k).assign(
            InstanceData(priors=torch.cat(levels)),
            [len(level) for level in levels],
            InstanceData(bboxes=boxes, labels=torch.arange(count)),
        )
        foreground = result.gt_inds.nonzero()[:, 0]
        pairs = torch.stack([foreground, result.gt_inds[foreground] - 1], dim=1)
        cases.append(
            {"scale": scale, "top_k": top_k, "boxes": boxes.tolist(), "matches": pairs.tolist()}
        )
    return cases


def loss_cases(gfocal, varifocal):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 4, generator=generator, dtype=torch.float64) * 3
    classes = torch.tensor([0, 1, 2, 3, 4, 4, 4, 2, 0])  # 4 is the background
    qualities = torch.rand(9, generator=generator, dtype=torch.float64)
    qualities[7] = 0.0  # a foreground whose box is beside its object
    targets = torch.zeros(9, 4, dtype=torch.float64)
    foreground = classes < 4
    targets[foreground, classes[foreground]] = qualities[foreground]
    qfl = {}
    for beta in (2.0, 1.0):
        loss = gfocal.QualityFocalLoss(beta=beta, reduction="none")(logits, (classes, qualities))
        qfl[str(beta)] = loss.tolist()
    vfl = {}
    for alpha, gamma in ((0.75, 2.0), (0.5, 1.0)):
        loss = varifocal.varifocal_loss(logits, targets, alpha=alpha, gamma=gamma, reduction="none")
        vfl[f"{alpha} {gamma}"] = loss.sum(dim=1).tolist()
    bins = torch.randn(12, 17, generator=generator, dtype=torch.float64) * 2
    distances = torch.rand(12, generator=generator, dtype=torch.float64) * 15.9
    distances[:3] = torch.tensor([0.0, 7.0, 15.9])
    dfl = gfocal.DistributionFocalLoss(reduction="none", loss_weight=0.25)(bins, distances)
    return {
        "logits": logits.tolist(),
        "classes": classes.tolist(),
        "qualities": qualities.tolist(),
        "quality_focal": qfl,
        "varifocal": vfl,
        "bins": bins.tolist(),
        "distances": distances.tolist(),
        "distribution_focal": dfl.tolist(),
    }


def main():
    atss, gfocal, varifocal = load_mmdet(sys.argv[1])
    numbers = {"atss": atss_cases(atss), "losses": loss_cases(gfocal, varifocal)}
    path = Path(__file__).parent / "numbers.json"
    path.write_text(json.dumps(numbers) + "\n")
    print(path, path.stat().st_size, [len(case["matches"]) for case in numbers["atss"]])


if __name__ == "__main__":
    main()
