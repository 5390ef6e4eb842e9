"""Keys of other tools and the keys of this one that mean the same: data for error messages."""

from collections.abc import Iterator, Mapping
from typing import Any

_LR = "solver.optimizer.lr"
_BATCH = "data.batch_size, the images of a step over all processes"
_ITERS = "solver.max_iter, in iterations: epochs * images / data.batch_size"
_WARMUP = "solver.schedule.warmup_iters, in iterations"
_CLASSES = (
    "no key: classes are counted in data.train; a data set's `classes: [...]` chooses among them"
)
_SIZE = "min_size and max_size of ResizeShortestEdge in data.train_transforms and .test_transforms"
_MIXED = "train.precision and test.precision: auto, fp32, bf16 or fp16"
_CLIP = "solver.clip_gradients: {norm: ...}"
_WORKERS = "data.num_workers, for each process"
_WEIGHTS = "model.weights, a file, a URL or a published name"
_NMS = "model.postprocessor.nms_thresh"
_SCORE = "model.postprocessor.score_thresh"
_SAVE = "train.checkpoint_period, in iterations"
_EVAL = "test.eval_period, in iterations"
_RESUME = "no key: give --resume on the command line"

# In lower case, by the last part of the key: of ultralytics, detectron2, mmdetection, torchvision's
# references and Keras.
WORDS: dict[str, str] = {
    **dict.fromkeys(("lr", "lr0", "base_lr", "learning_rate", "init_lr"), _LR),
    "lrf": "solver.schedule.end_factor",
    **dict.fromkeys(("epochs", "num_epochs", "max_epochs", "n_epochs", "total_epochs"), _ITERS),
    **dict.fromkeys(("max_iters", "total_iters", "iterations", "num_steps"), "solver.max_iter"),
    "steps": "milestones of the WarmupMultiStepLR in solver.schedule, in iterations",
    **dict.fromkeys(("batch", "batchsize", "ims_per_batch", "train_batch_size"), _BATCH),
    "samples_per_gpu": "data.batch_size, which counts the images of all GPUs together",
    **dict.fromkeys(("workers", "num_workers", "workers_per_gpu", "n_workers"), _WORKERS),
    **dict.fromkeys(("imgsz", "img_size", "image_size", "input_size", "img_scale"), _SIZE),
    **dict.fromkeys(("min_size_train", "max_size_train", "min_size_test", "max_size_test"), _SIZE),
    **dict.fromkeys(("num_classes", "nc", "n_classes"), _CLASSES),
    "names": "no key: names come from the annotations; a data set's `classes: [...]` chooses",
    **dict.fromkeys(("weight_decay", "wd"), "solver.optimizer.weight_decay"),
    "momentum": "solver.optimizer.momentum",
    "optim": "solver.optimizer: {name: ...}",
    **dict.fromkeys(("scheduler", "lr_scheduler", "lr_config"), "solver.schedule: {name: ...}"),
    **dict.fromkeys(("warmup", "warmup_iters", "warmup_steps"), _WARMUP),
    "warmup_epochs": f"{_WARMUP}: epochs * images / data.batch_size",
    **dict.fromkeys(("amp", "fp16", "half", "mixed_precision", "use_amp"), _MIXED),
    **dict.fromkeys(("grad_clip", "clip_grad", "clip_grad_norm", "gradient_clip_val"), _CLIP),
    **dict.fromkeys(("clipnorm", "max_grad_norm"), _CLIP),
    "accumulate_grad_batches": "train.accumulate; data.batch_size counts the whole step",
    **dict.fromkeys(("pretrained", "load_from", "ckpt", "checkpoint"), _WEIGHTS),
    **dict.fromkeys(("resume", "resume_from"), _RESUME),
    **dict.fromkeys(("iou_thres", "iou_threshold", "nms_thresh_test"), _NMS),
    **dict.fromkeys(("conf", "conf_thres", "score_thresh_test", "score_thr"), _SCORE),
    **dict.fromkeys(
        ("max_det", "detections_per_image", "max_per_img"), "model.postprocessor.max_detections"
    ),
    **dict.fromkeys(("work_dir", "project", "save_dir", "default_root_dir"), "output_dir"),
    "ema_decay": "train.ema: {decay: ...}",
    **dict.fromkeys(("save_period", "checkpoint_period", "checkpoint_every"), _SAVE),
    **dict.fromkeys(("eval_period", "val_interval", "val_period"), _EVAL),
    "gpus": "device, and torchrun --nproc-per-node for several GPUs",
    "patience": "train.hooks: [{name: EarlyStopping, patience: ...}]",
    "custom_imports": "imports: [file.py]",
    "meta_architecture": "model.name; tools/convert_config.py converts a config of detectron2",
}


def hint(name: str, value: Any) -> str:
    """What the unknown key of a section is called here, as a sentence; "" if nobody knows.

    Args:
        name: The key.
        value: Its value; of a section of another tool the keys within it are looked up.
    """
    found = {
        key: WORDS[key.rpartition(".")[2].lower()]
        for key in _leaves(name, value)
        if key.rpartition(".")[2].lower() in WORDS
    }
    told = [f"{key} of other tools is {ours}" for key, ours in list(found.items())[:3]]
    return "; ".join(told)


def _leaves(name: str, value: Any, depth: int = 0) -> Iterator[str]:
    yield name
    if isinstance(value, Mapping) and depth < 3:
        for key, entry in list(value.items())[:50]:
            yield from _leaves(f"{name}.{key}", entry, depth + 1)
