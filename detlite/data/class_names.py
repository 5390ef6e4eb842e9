"""Names of classes: which can be one, and how those of two data sets fit together."""

import logging
from collections import Counter
from collections.abc import Sequence

from ..errors import DataError
from .image_dataset import ImageDataset

MAX_CLASSES = 25_000
"""More than ImageNet's 21,841; a mistake in reading, such as an id for a class, makes millions."""

MAX_NAME = 200
"""Characters. Names stand in tables, in pictures and in names of metrics."""

_MAX_TOLD = 20

logger = logging.getLogger(__name__)


def check_class_names(names: Sequence[str], source: str) -> None:
    """Refuse class names that tables, metrics and checkpoints could not hold.

    Raises:
        DataError: There are more than ``MAX_CLASSES``; a name is empty, longer than ``MAX_NAME``,
            stands twice, or has a character that cannot be printed, such as a line break.
    """
    if len(names) > MAX_CLASSES:
        raise DataError(
            f"'{source}' has {len(names)} classes, such as {names[0][:MAX_NAME]!r}; at most "
            f"{MAX_CLASSES} are supported. Are other values taken for classes?"
        )
    for k, name in enumerate(names):
        # No message shows a name as it is: it may have a thousand characters or none to be seen.
        if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
            shown = repr(name) if len(name) <= 60 else f"{name[:60]!r}..."
            raise DataError(
                f"'{source}': class {k} is called {shown} ({len(name)} characters); a class name "
                f"has 1 to {MAX_NAME} characters that can be printed, no line breaks"
            )
    if len({*names}) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise DataError(f"'{source}' has two classes called '{twice}'")


def align_classes(
    dataset: ImageDataset, class_names: Sequence[str], other: str, section: str
) -> None:
    """Number the classes of a data set as others are numbered, by their names.

    Args:
        dataset: Is changed. It may lack classes; they then have no target in it.
        class_names: The classes in the order of their numbers.
        other: Whose they are, for the message.
        section: Where the data set is in the config, for the message.

    Raises:
        DataError: The data set has classes that are not among the others.
    """
    if tuple(dataset.class_names) == tuple(class_names):
        return
    own, known = {*dataset.class_names}, {*class_names}
    strange = [name for name in dataset.class_names if name not in known]
    if strange:
        common = [name for name in class_names if name in own]
        raise DataError(
            f"{section}: {other} lacks {len(strange)} of the {len(own)} classes of "
            f"'{dataset.name}': {listing(strange)}. It has {len(known)} ({listing(class_names)}), "
            f"'{dataset.name}' has {len(own)} ({listing(dataset.class_names)}).\n"
            + (
                f"    The data set's `classes: [{listing(common)}]` leaves out the other boxes."
                if common
                else "    No class is in both; names must be the same to the letter."
            )
        )
    lacking = [name for name in class_names if name not in own]
    dataset.renumber_classes(class_names)
    logger.info(
        "'%s': classes are numbered by their names as in %s%s",
        dataset.name,
        other,
        f"; it lacks {len(lacking)} of the {len(known)}: {listing(lacking)}" if lacking else "",
    )


def listing(names: Sequence[str], limit: int = _MAX_TOLD) -> str:
    """Names with commas, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
