"""From a file of weights, ours or a peer's, into a model, with a report of what went where."""

import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from .class_rows import ClassMatch, match_classes
from .interop import CLASSIFIER, CLASSIFIER_TENSORS, PeerWeights, recognize
from .load_report import MATCHED, MISSING, OTHER_SHAPE, RESHAPED, LoadReport, listed, sizes_of
from .reading import read_weights
from .safe_unpickle import check_tensors
from .settings import settings_differences

logger = logging.getLogger(__name__)

# What no peer's file holds, or only some do; the model's own beginning is right.
_COUNTER = "num_batches_tracked"
_OPTIONAL = re.compile(rf"(.*\.{_COUNTER}|loss_normalizer\..*)")


@dataclass(frozen=True)
class LoadOptions:
    """How weights are loaded.

    Attributes:
        class_names: Of the file's rows, where the file does not say them.
        threshold: Share of the backbone that must be loaded, or it is an error.
        complete: Every tensor of the model must be loaded, for a model that is not trained.
    """

    class_names: Sequence[str] | None = None
    threshold: float = 0.9
    complete: bool = False


def read_pretrained(source: str | os.PathLike[str], own: Collection[str] = ()) -> PeerWeights:
    """The weights in a file of detlite, detectron2, torchvision, mmdetection, timm or Caffe2.

    Args:
        source: A path, a URL, or a published name such as ``detectron2://...``.
        own: Names of the model's tensors, for a backbone that holds another library's modules.

    Raises:
        CheckpointError: The file cannot be read, or what it holds cannot be used.
    """
    peer = recognize(read_weights(source), str(source), own)
    peer.weights = check_tensors(peer.weights, peer.source)
    return peer


def load_pretrained(
    model: nn.Module,
    source: str | os.PathLike[str] | PeerWeights,
    class_names: Sequence[str],
    *,
    model_block: Mapping[str, Any] | None = None,
    options: LoadOptions | None = None,
) -> LoadReport:
    """Load weights into a model.

    Args:
        model: Changed only if everything is well.
        source: See ``read_pretrained``, or what it returned.
        class_names: The model's classes.
        model_block: The config of the model, which is compared with what the weights were made
            with; a difference is warned of.
        options: See there.

    Returns:
        What was loaded; it has been logged.

    Raises:
        CheckpointError: The file cannot be read, its numbers are unusable, or too little fits.
    """
    options = options or LoadOptions()
    own = model.state_dict()
    peer = source if isinstance(source, PeerWeights) else read_pretrained(source, own)
    matches = _class_matches(model, own, peer, class_names, options)
    report, loaded = _assign(model, own, peer, matches)
    _check(report, own, peer.weights, options)
    logger.info("%s", report)
    _warn_of_settings(model, peer, model_block)
    model.load_state_dict(loaded, strict=False)
    return report


def _assign(
    model: nn.Module,
    own: Mapping[str, Tensor],
    peer: PeerWeights,
    matches: Mapping[str, ClassMatch],
) -> tuple[LoadReport, dict[str, Tensor]]:
    weights = peer.weights
    report = LoadReport(
        source=peer.source,
        kind=peer.kind,
        fates={},
        sizes=sizes_of(own),
        left_over=[*peer.left_over, *(n for n in weights if n not in own)],
        not_needed=dict(peer.not_needed),
    )
    loaded: dict[str, Tensor] = {}
    for tensor_name, value in own.items():
        theirs = weights.get(tensor_name)
        match = matches.get(tensor_name)
        if theirs is None:
            if not _OPTIONAL.fullmatch(tensor_name):
                report.fates[tensor_name] = MISSING
        elif match is not None and not match.unchanged:
            loaded[tensor_name] = match.gather(value.cpu(), theirs)
            report.fates[tensor_name] = RESHAPED
        elif theirs.shape == value.shape and (match or not _is_class_layer(model, tensor_name)):
            loaded[tensor_name] = theirs
            report.fates[tensor_name] = MATCHED
        else:
            report.fates[tensor_name] = OTHER_SHAPE
    report.notes += sorted({str(match) for match in matches.values() if _worth_a_note(match)})
    report.new_classes = sorted({name for match in matches.values() for name in match.new})
    counters = [n for n in report.left_over if n.endswith(_COUNTER)]
    if counters:
        report.not_needed["batch counters"] = len(counters)
    # A detector leaves what told its backbone's images apart.
    classifier = [n for n in report.left_over if n in CLASSIFIER_TENSORS]
    if classifier:
        report.not_needed = {CLASSIFIER: len(classifier), **report.not_needed}
    report.left_over = [
        n for n in report.left_over if not _OPTIONAL.fullmatch(n) and n not in classifier
    ]
    return report, loaded


def _class_matches(
    model: nn.Module,
    own: Mapping[str, Tensor],
    peer: PeerWeights,
    class_names: Sequence[str],
    options: LoadOptions,
) -> dict[str, ClassMatch]:
    """Which rows each tensor of the head's class layers takes; those without an answer are left."""
    matches = {}
    their_names = options.class_names or peer.class_names
    for tensor_name, theirs in peer.weights.items():
        if tensor_name not in own or not _is_class_layer(model, tensor_name):
            continue
        ours = own[tensor_name]
        anchors = len(ours) // len(class_names)
        if theirs.ndim != ours.ndim or theirs.shape[1:] != ours.shape[1:]:
            continue
        if len(theirs) == 0 or len(theirs) % anchors:
            continue
        num_theirs = len(theirs) // anchors
        if options.class_names and len(options.class_names) != num_theirs:
            raise CheckpointError(
                f"model.weights_class_names has {len(options.class_names)} names, and "
                f"{peer.source} has rows for {num_theirs} classes ({len(theirs)} of them, "
                f"{anchors} anchors each)"
            )
        if their_names and len(their_names) != num_theirs:
            continue
        # An image classifier of 80 classes is none of COCO.
        detector = not _is_classifier(model)
        match = match_classes(class_names, their_names, num_theirs, maybe_coco=detector)
        if match:
            matches[tensor_name] = match
    return matches


def _worth_a_note(match: ClassMatch) -> bool:
    return not (match.unchanged and match.their_names == match.class_names)


def _is_class_layer(model: nn.Module, tensor_name: str) -> bool:
    """Whether a tensor's rows are anchor * K + class; a detector's head says which are."""
    if _is_classifier(model):
        return tensor_name in CLASSIFIER_TENSORS
    layers = getattr(getattr(model, "head", None), "class_layers", ())
    return tensor_name.startswith(tuple(f"head.{layer}." for layer in layers))


def _is_classifier(model: nn.Module) -> bool:
    """Whether the head is one linear layer, with a row for each class."""
    return isinstance(getattr(model, "head", None), nn.Linear)


def _check(
    report: LoadReport,
    own: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    options: LoadOptions,
) -> None:
    share, used = report.share("backbone."), _share_used(report, own, weights)
    if min(share, used) < options.threshold:
        problem = f"only {100 * share:.1f} % of the model's backbone is in {report.source}"
        if share >= options.threshold:
            problem = f"the model takes only {100 * used:.1f} % of the backbone in {report.source}"
        raise CheckpointError(
            f"{problem} (at least {100 * options.threshold:g} % are needed, see "
            f"model.weights_threshold).{_difference(own, weights)}\n{report}"
        )
    misshapen = [name for name in report.named(OTHER_SHAPE) if name.startswith("backbone.")]
    if misshapen and options.threshold:
        raise CheckpointError(
            f"{len(misshapen)} of the model's backbone tensors have another shape in "
            f"{report.source} ({listed(misshapen)}): it is a backbone of another kind. Set "
            "model.backbone to that of the file, or model.weights_threshold to 0 to load what "
            f"fits.\n{report}"
        )
    if options.complete and report.new_classes:
        raise CheckpointError(
            f"{report.source} knows no {listed(report.new_classes)}: without training the model "
            "cannot find what its weights have no rows for. If the file's classes are called "
            "otherwise, list its names in order in model.weights_class_names.\n"
            f"{report}"
        )
    left = report.named(MISSING, OTHER_SHAPE)
    if options.complete and left:
        raise CheckpointError(
            f"{len(left)} of the model's {len(report.fates)} tensors are not in {report.source} "
            f"({listed(left)}), so the model cannot be used without training it. Weights of a "
            f"whole model, of the architecture and the classes of the config, are needed.\n"
            f"{report}"
        )


def _share_used(
    report: LoadReport, own: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> float:
    """Share of the file's backbone that was loaded, of the stages that the model has."""
    stages = {name.split(".")[1] for name in own if name.startswith("backbone.")}
    theirs = {
        name: size
        for name, size in sizes_of(weights).items()
        if name.startswith("backbone.")
        and name.split(".")[1] in stages
        and not name.endswith(_COUNTER)
    }
    loaded = sum(size for name, size in theirs.items() if report.fates.get(name) == MATCHED)
    return loaded / sum(theirs.values()) if theirs else 1.0


def _difference(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """What the two backbones are, if they are ResNets of another depth."""
    counts = []
    for names in (weights, own):
        found = {m.groups() for n in names if (m := re.match(r"backbone\.(res\d)\.(\d+)\.", n))}
        per_stage = Counter(stage for stage, _ in found)
        counts.append("-".join(str(per_stage[stage]) for stage in sorted(per_stage)))
    theirs, ours = counts
    if theirs and ours and not theirs.startswith(ours):
        return (
            f" The file's ResNet has {theirs} blocks in its stages, the model's {ours}: set "
            "model.backbone.depth."
        )
    return ""


def _warn_of_settings(
    model: nn.Module, peer: PeerWeights, model_block: Mapping[str, Any] | None
) -> None:
    different = settings_differences(peer.settings, model_block or {})
    own = [value for key, value in model.named_buffers() if ".cell_anchors_" in key]
    pairs = list(zip(own, peer.cell_anchors, strict=False))
    if any(a.shape != b.shape or not torch.allclose(a.cpu(), b, atol=1e-3) for a, b in pairs):
        different.append("model.anchor_generator: other anchors, or in another order")
    if different:
        logger.warning(
            "%s was made with other settings than the config's; the same weights compute something "
            "else here:%s",
            peer.source,
            "".join(f"\n    {line}" for line in different),
        )
