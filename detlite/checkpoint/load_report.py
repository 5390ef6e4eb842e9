"""What became of each tensor when weights were loaded, as a table of few lines."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..utils.tables import fitted_table

MATCHED, RESHAPED, OTHER_SHAPE, MISSING = "matched", "reshaped", "other shape", "missing"
_MAX_TOLD = 6


@dataclass(kw_only=True)
class LoadReport:
    """What became of the model's tensors and of the file's.

    Attributes:
        source: The file, as the user named it.
        kind: Whose weights they are.
        fates: For each of the model's tensors "matched", "reshaped" (class rows were picked),
            "other shape" (left as the model began) or "missing" (likewise).
        sizes: Their numbers of elements.
        left_over: The file's tensors that found no place.
        not_needed: What else the file holds, and how many tensors of it.
        notes: Further lines.
        new_classes: Classes of the model that the file has no rows for.
    """

    source: str
    kind: str
    fates: dict[str, str]
    sizes: dict[str, int]
    left_over: list[str] = field(default_factory=list)
    not_needed: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    new_classes: list[str] = field(default_factory=list)

    def share(self, prefix: str = "") -> float:
        """Share of the elements that were loaded, of the tensors whose name begins so."""
        names = [name for name in self.fates if name.startswith(prefix)]
        total = sum(self.sizes[name] for name in names)
        loaded = (self.sizes[n] for n in names if self.fates[n] in (MATCHED, RESHAPED))
        return sum(loaded) / total if total else 1.0

    def named(self, *fates: str) -> list[str]:
        """The model's tensors of these fates."""
        return [name for name, fate in self.fates.items() if fate in fates]

    def __str__(self) -> str:
        if all(fate == MATCHED for fate in self.fates.values()) and not self.left_over:
            return "\n".join(
                [f"weights: all {len(self.fates)} tensors of {self.source} ({self.kind})"]
                + self.notes
            )
        left = Counter(_module(name) for name in self.left_over)
        modules = list(dict.fromkeys([*map(_module, self.fates), *left]))
        columns = (MATCHED, RESHAPED, OTHER_SHAPE, MISSING)
        rows = []
        for module in modules:
            counts = Counter(fate for name, fate in self.fates.items() if _module(name) == module)
            known = any(_module(name) == module for name in self.fates)
            share = f"{100 * self.share(f'{module}.'):.1f} %" if known else ""
            rows.append([module, *(counts[c] for c in columns), left[module], share])
        headers = ["module", *columns, "left over", "loaded"]
        lines = [
            f"weights: {self.kind} from {self.source}",
            fitted_table(rows, headers, colalign=("left", *["right"] * 6)),
            *self.notes,
        ]
        # Of a module that is missing altogether the table says enough.
        partly = [n for n in self.named(MISSING) if self.share(f"{_module(n)}.") > 0]
        for title, names in (
            ("other shape", self.named(OTHER_SHAPE)),
            ("missing", partly),
            ("left over", self.left_over),
        ):
            if names:
                lines.append(f"{title}: {listed(names)}")
        if self.not_needed:
            sorts = ", ".join(f"{sort} ({count})" for sort, count in self.not_needed.items())
            lines.append(f"known and not needed: {sorts}")
        return "\n".join(lines)


def sizes_of(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Number of elements of each tensor."""
    return {name: math.prod(value.shape) for name, value in tensors.items()}


def listed(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f", and {len(names) - _MAX_TOLD} more" if len(names) > _MAX_TOLD else ""
    return ", ".join(names[:_MAX_TOLD]) + more


def _module(name: str) -> str:
    return name.split(".")[0]
