"""What the checks of a component have found, and how it is told."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "FAILED", "skipped"]


class ConformanceError(AssertionError):
    """A component breaks the contract of its kind; the message is the report."""


class Broken(Exception):
    """Raised by a check: what is wrong, and the values."""


class NotApplicable(Exception):
    """Raised by a check that does not concern this component, or cannot run here: why."""


class OtherKind(Exception):
    """Raised by a check that is for another kind of component; nothing is told of it."""


@dataclass(frozen=True)
class Outcome:
    """What became of one check.

    Attributes:
        title: What was checked, as a claim.
        status: "ok", "FAILED" or "skipped".
        detail: What broke, or why it was skipped.
        contract: The line of the contract, and where it stands.
    """

    title: str
    status: Status
    detail: str = ""
    contract: str = ""


@dataclass(frozen=True)
class Report:
    """What became of all checks of one component.

    Attributes:
        kind: The component's kind, as its registry says it.
        name: The component's name.
        outcomes: One a check, in the order in which they ran.
    """

    kind: str
    name: str
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> list[Outcome]:
        """The checks that the component does not pass."""
        return [outcome for outcome in self.outcomes if outcome.status == "FAILED"]

    def count(self, status: Status) -> int:
        """How many checks ended so."""
        return sum(outcome.status == status for outcome in self.outcomes)

    def __str__(self) -> str:
        lines = [self.headline()]
        for outcome in self.outcomes:
            lines.append(f"  {outcome.status:8}{outcome.title}")
            if outcome.status == "FAILED":
                lines += [f"            {line}" for line in outcome.detail.splitlines()]
                lines.append(f"            contract: {outcome.contract}")
            elif outcome.detail:
                lines.append(f"            {outcome.detail}")
        return "\n".join(lines)

    def headline(self) -> str:
        """The component and its counts, in one line."""
        skipped = self.count("skipped")
        return f"{self.kind} '{self.name}': {self.count('ok')} ok, {len(self.failed)} FAILED" + (
            f", {skipped} skipped" if skipped else ""
        )

    def raise_if_failed(self) -> None:
        """Raise a ConformanceError with the report, unless all is well."""
        if self.failed:
            raise ConformanceError(f"{self}")
