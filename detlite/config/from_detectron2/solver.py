"""The sections solver, train and test, and the keys above all sections."""

from typing import Any

from .data import evaluators
from .model import has_trained_norms
from .settings import Settings


def solver_section(s: Settings) -> dict[str, Any]:
    """How the weights move."""
    optimizer = {
        "name": "SGD",
        "lr": s.get("SOLVER.BASE_LR"),
        "momentum": s.get("SOLVER.MOMENTUM"),
        **({"nesterov": True} if s.get("SOLVER.NESTEROV") else {}),
        "weight_decay": s.get("SOLVER.WEIGHT_DECAY"),
    }
    if s.get("SOLVER.REFERENCE_WORLD_SIZE"):
        s.lost(
            "SOLVER.REFERENCE_WORLD_SIZE",
            "the batch size is not adapted to the number of GPUs; set data.batch_size, and rates "
            "and iterations follow by solver.reference_batch_size",
        )
    if s.get("SOLVER.BIAS_LR_FACTOR") != 1:
        s.lost("SOLVER.BIAS_LR_FACTOR", "biases learn at the rate of the weights")
    decay_norm = s.get("SOLVER.WEIGHT_DECAY_NORM")
    decay_bias = s.get("SOLVER.WEIGHT_DECAY_BIAS")
    if decay_bias not in (None, decay_norm) and has_trained_norms(s):
        s.lost(
            "SOLVER.WEIGHT_DECAY_BIAS",
            "translated, but shifts of norms decay as their scales do, by solver.weight_decay_norm",
        )
    section = {
        "optimizer": optimizer,
        "schedule": _schedule(s),
        "max_iter": s.get("SOLVER.MAX_ITER"),
        "reference_batch_size": s.get("SOLVER.IMS_PER_BATCH"),
        "weight_decay_norm": decay_norm,
    }
    section |= {} if decay_bias is None else {"weight_decay_bias": decay_bias}
    clip = _clip_gradients(s)
    return section | ({"clip_gradients": clip} if clip else {})


def train_section(s: Settings) -> dict[str, Any]:
    """How a run goes."""
    precision = "fp16" if s.get("SOLVER.AMP.ENABLED") else "fp32"
    return {"precision": precision, "checkpoint_period": s.get("SOLVER.CHECKPOINT_PERIOD")}


def test_section(s: Settings) -> dict[str, Any]:
    """How a model is tested."""
    switches = {
        "TEST.AUG": (("MIN_SIZES", "MAX_SIZE", "FLIP"), "there is no test-time augmentation here"),
        "TEST.PRECISE_BN": (("NUM_ITER",), "the statistics of norms are their moving averages"),
    }
    for section, (names, advice) in switches.items():
        keys = tuple(f"{section}.{name}" for name in names)
        if s.get(f"{section}.ENABLED"):
            s.lost(f"{section}.ENABLED", advice, also=keys)
        else:
            s.no_loss(*keys, because=f"{section}.ENABLED is false")
    if s.get("TEST.EXPECTED_RESULTS"):
        s.lost("TEST.EXPECTED_RESULTS", "nothing checks the numbers of a run; see its metrics.json")
    # detectron2 tests in fp32, also with AMP.
    return {
        "eval_period": s.get("TEST.EVAL_PERIOD"),
        "evaluators": evaluators(s),
        "precision": "fp32",
    }


def top_keys(s: Settings) -> dict[str, Any]:
    """The keys above all sections, and those without a place of their own."""
    values = {"output_dir": s.get("OUTPUT_DIR")}
    if "SEED" in s and s.get("SEED") < 0:
        s.no_loss("SEED", because="a run can always be repeated here; another `seed`, another run")
    elif "SEED" in s:
        values["seed"] = s.get("SEED")
    device = s.get("MODEL.DEVICE")
    if "MODEL.DEVICE" in s:
        values["device"] = device if device in ("cpu", "cuda") else "auto"
    if device not in ("cpu", "cuda"):
        s.lost("MODEL.DEVICE", "devices are auto, cpu and cuda; CUDA_VISIBLE_DEVICES picks a GPU")
    for key, advice in {
        "MODEL.MASK_ON": "no masks here; there a RetinaNet's boxes without a mask are left out",
        "MODEL.KEYPOINT_ON": "no keypoints here; there images without keypoints are left out",
        "CUDNN_BENCHMARK": "set torch.backends.cudnn.benchmark in a file of `imports:`",
        "FLOAT32_PRECISION": "call torch.set_float32_matmul_precision in a file of `imports:`",
        "VIS_PERIOD": "the hook PredictionPictures draws at the end of a run",
    }.items():
        if s.get(key):
            s.lost(key, advice)
    return values


def _schedule(s: Settings) -> dict[str, Any]:
    key, steps, end = "SOLVER.LR_SCHEDULER_NAME", "SOLVER.STEPS", "SOLVER.BASE_LR_END"
    decays, gamma = "SOLVER.NUM_DECAYS", "SOLVER.GAMMA"
    name, max_iter = s.get(key), s.get("SOLVER.MAX_ITER")
    if name == "WarmupCosineLR":
        s.no_loss(steps, decays, gamma, because="only for rates that fall in steps")
        rate, last = s.get("SOLVER.BASE_LR"), s.get(end)
        if not 0 <= last <= rate or rate == 0:
            s.problem(end, f"must lie between 0 and SOLVER.BASE_LR, {rate}, above 0")
            rate, last = 1.0, 0.0
        return {"name": name, "end_factor": last / rate, **_warmup(s, None)}
    s.no_loss(end, because="only for WarmupCosineLR")
    if name == "WarmupStepWithFixedGammaLR":
        s.no_loss(steps, because="only for WarmupMultiStepLR")
        parts = s.get(decays) + 1
        milestones = [-(-max_iter * part // parts) for part in range(1, parts)]
    else:
        s.no_loss(decays, because="only for WarmupStepWithFixedGammaLR")
        milestones = [step for step in s.get(steps) if step <= max_iter]
        if len(milestones) < len(s.get(steps)):
            s.no_loss(steps, because=f"those beyond SOLVER.MAX_ITER, {max_iter}, are left out")
        if s.get(steps) != sorted(s.get(steps)):
            s.problem(steps, "must rise")
    if name not in ("WarmupMultiStepLR", "WarmupStepWithFixedGammaLR"):
        s.lost(key, "WarmupMultiStepLR stands for it; a schedule of torch or a project's will do")
    return {
        "name": "WarmupMultiStepLR",
        "milestones": milestones,
        "gamma": s.get(gamma),
        **_warmup(s, milestones),
    }


def _warmup(s: Settings, milestones: list[int] | None) -> dict[str, Any]:
    """The warm-up; what follows it are steps at milestones, or a cosine if these are None."""
    method, rescale = "SOLVER.WARMUP_METHOD", "SOLVER.RESCALE_INTERVAL"
    iters = min(s.get("SOLVER.WARMUP_ITERS"), s.get("SOLVER.MAX_ITER"))
    if s.get(method) not in ("linear", "constant"):
        s.problem(method, "must be linear or constant")
    if iters and s.get(method) == "constant":
        s.lost(method, "the rate rises linearly here")
    if iters and milestones is None and not s.get(rescale):
        s.lost(
            rescale, "there the cosine begins at iteration 0, behind the warm-up; here at the end "
            "of the warm-up, so the rate falls a little later",
        )  # fmt: skip
    elif iters and milestones is not None and s.get(rescale):
        s.lost(rescale, "milestones count from iteration 0 here; there they shift with the warm-up")
    if iters and milestones and milestones[0] < iters:
        s.lost(
            "SOLVER.WARMUP_ITERS",
            f"the rate falls at {milestones[0]} within the warm-up; there the warm-up aims at what "
            "is left at its end",
        )
    return {"warmup_iters": iters, "warmup_factor": s.get("SOLVER.WARMUP_FACTOR")}


def _clip_gradients(s: Settings) -> dict[str, Any]:
    enabled, kind, value, norm = (
        f"SOLVER.CLIP_GRADIENTS.{name}"
        for name in ("ENABLED", "CLIP_TYPE", "CLIP_VALUE", "NORM_TYPE")
    )
    if not s.get(enabled):
        s.no_loss(kind, value, norm, because=f"{enabled} is false")
        return {}
    if s.get(kind) == "value":
        s.no_loss(norm, because=f"only for {kind} norm")
        return {"value": s.get(value)}
    if s.get(kind) != "norm":
        s.problem(kind, "must be value or norm")
    s.lost(
        kind, "there each parameter's gradient has a limit of its own; here all have one together, "
        "solver.clip_gradients.norm, which wants a greater value", also=(value, norm),
    )  # fmt: skip
    return {}
