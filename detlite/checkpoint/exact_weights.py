"""Weights into the very architecture that they were made by."""

from collections.abc import Mapping

from torch import Tensor, nn

from ..errors import CheckpointError

_MAX_TOLD = 6


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into a model; every one must fit.

    Raises:
        CheckpointError: Names or shapes differ; the message tells which. The model is unchanged.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in weights]
    left_over = [name for name in weights if name not in own]
    reshaped = [
        f"{name} {tuple(weights[name].shape)} (the model's is {tuple(own[name].shape)})"
        for name in own
        if name in weights and own[name].shape != weights[name].shape
    ]
    problems = [
        f"    {len(names)} {title}: {', '.join(names[:_MAX_TOLD])}"
        + (", ..." if len(names) > _MAX_TOLD else "")
        for title, names in (
            ("of the model's tensors are not in the file", missing),
            ("of the file's tensors are not in the model", left_over),
            ("have another shape", reshaped),
        )
        if names
    ]
    if problems:
        fitting = len(own) - len(missing) - len(reshaped)
        raise CheckpointError(
            f"{source} is of another architecture: {fitting} of the model's {len(own)} tensors "
            "fit\n" + "\n".join(problems) + "\n    Use the config that it was made with; it "
            "stands in the checkpoint and in config.yaml beside it."
        )
    model.load_state_dict(dict(weights))
