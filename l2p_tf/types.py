"""Small types that every layer of the package shares."""

from __future__ import annotations

import enum

_HEAD, _TAIL = 500, 200
"""Characters of a message that are kept where it is longer than both."""


class UserError(ValueError):
    """Something the user can mend: its message is one line that names argument, value and what is accepted.

    The stages print it and leave with a status that is not 0; no traceback is shown. Of a message of thousands of
    characters, such as one that quotes what was received, beginning and end are kept.
    """

    def __init__(self, message: str) -> None:
        line = message.replace("\n", " ")
        super().__init__(line if len(line) <= _HEAD + _TAIL else f"{line[:_HEAD]} [...] {line[-_TAIL:]}")


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """A signal asked to stop, and the work so far is saved.

    Attributes:
      number: of the signal.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class Norm(str, enum.Enum):
    """The norm in which a perturbation is bounded."""

    LINF = "linf"
    L2 = "l2"
    L1 = "l1"

    def __str__(self) -> str:
        return self.value
