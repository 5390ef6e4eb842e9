"""From a config's model block to a model."""

from collections.abc import Sequence

from ..errors import UserError
from ..registry import Block
from .interfaces import MetaArch
from .registries import META_ARCH_REGISTRY


def build_meta_arch(block: Block, class_names: Sequence[str]) -> MetaArch:
    """Build the model of a block for classes of these names.

    Raises:
        UserError: A component refused its values; the message names the component's model.
    """
    try:
        model: MetaArch = META_ARCH_REGISTRY.build(block, num_classes=len(class_names))
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"model '{block.name}' cannot be built: {error}") from error
    model.class_names = tuple(class_names)
    return model
