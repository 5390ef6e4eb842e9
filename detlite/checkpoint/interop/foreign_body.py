"""Weights of a library's model for a backbone that holds the library's own modules.

``TorchvisionBackbone`` and ``TimmBackbone`` do, as their ``body``.
"""

from collections.abc import Collection, Mapping

from torch import Tensor

from .peer_weights import PeerWeights, translate

_BODY = "backbone.body."


def read_foreign_body(state: Mapping[str, Tensor], own: Collection[str]) -> PeerWeights | None:
    """The weights that such a backbone has; None if the model has none, or the file is another's.

    Args:
        state: By the library's names.
        own: Names of the model's tensors.
    """
    # timm joins a path with underscores where it takes a model apart: stages.0 is stages_0.
    body = {_flat(name.removeprefix(_BODY)): name for name in own if name.startswith(_BODY)}
    known = {_flat(name) for name in state} & set(body)
    if len(known) * 2 <= len(body):
        return None
    return translate(
        state,
        lambda name: body.get(_flat(name)),
        kind="model whose modules are the backbone's",
        not_needed={"beyond the last map": lambda name: _flat(name) not in body},
    )


def _flat(name: str) -> str:
    return name.replace(".", "_")
