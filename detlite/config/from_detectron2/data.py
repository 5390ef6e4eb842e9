"""The data section: detectron2's registered data sets, loader and augmentation in our blocks."""

from typing import Any

from .settings import Settings

# name there: the json under coco/annotations, the folder under coco, the number of classes
_COCO = {
    "coco_2014_train": ("instances_train2014", "train2014", 80),
    "coco_2014_val": ("instances_val2014", "val2014", 80),
    "coco_2014_minival": ("instances_minival2014", "val2014", 80),
    "coco_2014_valminusminival": ("instances_valminusminival2014", "val2014", 80),
    "coco_2017_train": ("instances_train2017", "train2017", 80),
    "coco_2017_val": ("instances_val2017", "val2017", 80),
    "coco_2017_val_100": ("instances_val2017_100", "val2017", 80),
    "keypoints_coco_2014_train": ("person_keypoints_train2014", "train2014", 1),
    "keypoints_coco_2014_val": ("person_keypoints_val2014", "val2014", 1),
    "keypoints_coco_2017_train": ("person_keypoints_train2017", "train2017", 1),
    "keypoints_coco_2017_val": ("person_keypoints_val2017", "val2017", 1),
}
# name there: the folder, the split; 20 classes in alphabetical order, as ours are
_VOC = {
    f"voc_{year}_{split}": (f"VOC{year}", split)
    for year, splits in {2007: "trainval train val test", 2012: "trainval train val"}.items()
    for split in splits.split()
}
_VOC_CLASSES = 20
# A range of sizes is written out as a list; one beyond this is a mistake rather than a range.
MAX_SIZES = 2000
FILL_IN = "FILL_IN"
_SIZE_RANGE = "INPUT.MIN_SIZE_TRAIN_SAMPLING"


def data_section(s: Settings) -> dict[str, Any]:
    """What is trained and tested on."""
    train, test = (_datasets(s, f"DATASETS.{name}") for name in ("TRAIN", "TEST"))
    section = {
        "train": train,
        "test": test,
        "train_transforms": _train_transforms(s),
        "test_transforms": _resize(s, "TEST", [s.get("INPUT.MIN_SIZE_TEST")]),
        "batch_size": s.get("SOLVER.IMS_PER_BATCH"),
        "num_workers": s.get("DATALOADER.NUM_WORKERS"),
        "sampler": _sampler(s),
        "aspect_ratio_grouping": s.get("DATALOADER.ASPECT_RATIO_GROUPING"),
        "keep_empty_images": not s.get("DATALOADER.FILTER_EMPTY_ANNOTATIONS"),
    }
    num_classes = _num_classes(s)
    return section | ({} if num_classes is None else {"num_classes": num_classes})


def evaluators(s: Settings) -> list[dict[str, Any]]:
    """What is computed on the test data: as detectron2 does, COCO's numbers or VOC's."""
    names = s.get("DATASETS.TEST")
    if not names or not all(name in _VOC for name in names):
        return [{"name": "COCOEvaluator"}]
    method = "11point" if all("2007" in name for name in names) else "area"
    return [{"name": "VOCEvaluator", "method": method}]


def _datasets(s: Settings, key: str) -> list[dict[str, Any]]:
    names = s.get(key)
    if not names:
        section = key.partition(".")[2].lower()
        s.fill_in(f"data.{section}", [], f"{key} names no data set; put yours in data.{section}")
    return [_dataset(s, key, name) for name in names]


def _dataset(s: Settings, key: str, name: str) -> dict[str, Any]:
    if name in _COCO:
        json, images, _ = _COCO[name]
        return {
            "name": "CocoDetection",
            "json": f"coco/annotations/{json}.json",
            "images": f"coco/{images}",
        }
    if name in _VOC:
        root, split = _VOC[name]
        return {"name": "VocDetection", "root": root, "split": split, "one_based": True}
    s.fill_in(
        key, name, f"'{name}' is registered in Python: write its json and folder of images, the "
        f"arguments of register_coco_instances, for {FILL_IN}; below $DETLITE_DATASETS or absolute",
    )  # fmt: skip
    return {
        "name": "CocoDetection",
        "json": f"{FILL_IN}/{name}.json",
        "images": FILL_IN,
        "title": name,
    }


def _num_classes(s: Settings) -> int | None:
    """A number to check the data against; None if the data sets are known to have it."""
    stated: int = s.get("MODEL.RETINANET.NUM_CLASSES")
    names = [*s.get("DATASETS.TRAIN"), *s.get("DATASETS.TEST")]
    known = {name: _COCO[name][2] for name in names if name in _COCO}
    known |= {name: _VOC_CLASSES for name in names if name in _VOC}
    for name, count in known.items():
        if count != stated:
            s.lost(
                "MODEL.RETINANET.NUM_CLASSES",
                f"{name} has {count} classes, and a head has as many as its data here. Choose "
                "classes with the data set's `classes: [...]`, or correct data.num_classes",
            )
            return stated
    return None if names and len(known) == len({*names}) else stated


def _train_transforms(s: Settings) -> list[dict[str, Any]]:
    crop, how = "INPUT.CROP.ENABLED", ("INPUT.CROP.TYPE", "INPUT.CROP.SIZE")
    if s.get(crop):
        s.lost(
            crop, "no such crop here; RandomIoUCrop or RandomResizedCrop of torchvision, put first "
            "in data.train_transforms, come near", also=how,
        )  # fmt: skip
    else:
        s.no_loss(*how, because=f"{crop} is false")
    flips = {"horizontal": "RandomHorizontalFlip", "vertical": "RandomVerticalFlip", "none": None}
    flip = s.get("INPUT.RANDOM_FLIP")
    if flip not in flips:
        s.problem("INPUT.RANDOM_FLIP", "must be horizontal, vertical or none")
    transforms = _resize(s, "TRAIN", _train_sizes(s))
    name = flips.get(flip)
    return transforms + ([{"name": name, "p": 0.5}] if name else [])


def _train_sizes(s: Settings) -> list[int]:
    key = "INPUT.MIN_SIZE_TRAIN"
    sizes: list[int] = s.get(key)
    style = s.get(_SIZE_RANGE)
    if not sizes or any(size < 0 for size in sizes):
        s.problem(key, "must hold the lengths of the shorter side in pixels")
        return [1]
    if style == "choice":
        return sizes
    if style != "range" or len(sizes) != 2 or not 0 < sizes[0] <= sizes[1] <= sizes[0] + MAX_SIZES:
        s.problem(_SIZE_RANGE, f"must be choice, or range with two sizes in {key}, least and most")
        return [1]
    return list(range(sizes[0], sizes[1] + 1))


def _resize(s: Settings, which: str, sizes: list[int]) -> list[dict[str, Any]]:
    """The resizing; none at a size of 0, which is how detectron2 switches it off."""
    least, most = f"INPUT.MIN_SIZE_{which}", f"INPUT.MAX_SIZE_{which}"
    if not any(sizes):
        s.no_loss(most, because=f"{least} is 0, images keep their size")
        return []
    if 0 in sizes:
        s.lost(least, "0, some images as they are, has no counterpart; the other sizes are kept")
    kept = [size for size in sizes if size]
    return [
        {
            "name": "ResizeShortestEdge",
            "min_size": kept[0] if len(kept) == 1 else kept,
            "max_size": s.get(most),
            "method": "pillow",
        }
    ]


def _sampler(s: Settings) -> dict[str, Any]:
    key = "DATALOADER.SAMPLER_TRAIN"
    threshold, root = "DATALOADER.REPEAT_THRESHOLD", "DATALOADER.REPEAT_SQRT"
    name = s.get(key)
    if name == "RepeatFactorTrainingSampler":
        if not s.get(root):
            s.lost(root, "images are repeated by the square root of their rarity here")
        return {"name": "RepeatFactorSampler", "threshold": s.get(threshold)}
    s.no_loss(threshold, root, because="only for RepeatFactorTrainingSampler")
    if name != "TrainingSampler":
        s.lost(key, "only TrainingSampler and RepeatFactorTrainingSampler are translated")
    return {"name": "ShuffleSampler"}
