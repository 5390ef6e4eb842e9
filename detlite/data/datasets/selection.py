"""Which of a data set's classes are wanted."""

from collections.abc import Sequence

from ...errors import DataError, did_you_mean


def select_classes(wanted: Sequence[str] | None, known: Sequence[str], source: str) -> list[str]:
    """Check the ``classes`` of a config against the class names of the annotations.

    Args:
        wanted: Names in the order of their numbers; None selects all.
        known: All class names that the annotations have.
        source: Where they are, for the message.

    Raises:
        DataError: A wanted class is unknown or given twice, or there is no class.
    """
    if not known:
        raise DataError(f"the annotations in '{source}' have no classes")
    if wanted is None:
        return list(known)
    for name in wanted:
        if name not in known:
            shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
            raise DataError(
                f"class '{name}' is not in '{source}'{did_you_mean(name, known)}; it has {shown}.\n"
                "    Without `classes` a test set may lack some of the classes of training"
            )
    if not wanted or len({*wanted}) < len(wanted):
        raise DataError(f"`classes` must name at least one class, each once, got {list(wanted)}")
    return list(wanted)
