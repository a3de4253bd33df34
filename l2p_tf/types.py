"""Small types used throughout the package."""

from __future__ import annotations

import enum

_HEAD, _TAIL = 500, 200
"""Number of characters kept at both ends of longer messages."""


class UserError(ValueError):
    """An error the user can fix: its message is one line that names argument, value and what is accepted.

    The stages print it and exit with a nonzero status, without a traceback. Very long messages, such as those that
    quote the input, are shortened in the middle.
    """

    def __init__(self, message: str) -> None:
        line = message.replace("\n", " ")
        super().__init__(line if len(line) <= _HEAD + _TAIL else f"{line[:_HEAD]} [...] {line[-_TAIL:]}")


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """A signal requested a stop, and the work so far is saved.

    Attributes:
      number: number of the signal.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class Norm(str, enum.Enum):
    """The norm that bounds a perturbation."""

    LINF = "linf"
    L2 = "l2"
    L1 = "l1"

    def __str__(self) -> str:
        return self.value
