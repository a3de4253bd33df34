"""Enforces the requirements on runs."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import TYPE_CHECKING

from l2p_tf.types import UserError
from stages import calls, common, folders
from stages.settings import Settings

if TYPE_CHECKING:
    from l2p_tf.data.store import ImageData


def check(settings: Settings, names: Collection[str]) -> None:
    """Raises UserError if --require is malformed, or names a run not among these."""
    unknown = [bound.run for bound in settings.bounds if bound.run not in ("", *names)]
    if unknown:
        raise UserError(f"`--require` should name runs of {', '.join(names)}. Received: {unknown[0]!r}")


def hold(settings: Settings, names: Collection[str], images: ImageData) -> int:
    """Checks runs against --require, with a line for each miss; returns the exit status, 3 if there is one."""
    from l2p_tf import artifacts
    from l2p_tf.evaluation.gate import STAGE, gate_artifact
    from l2p_tf.reporting.format import plural

    missed = []
    for name in names if settings.bounds and settings.devices.is_chief else ():
        other = calls.other_data(calls.trained(settings, name), images)
        attacked = [artifacts.read(folder, "attack") for folder in folders.attacks(settings, name, other)]
        output = folders.place(settings, name, STAGE, other)
        outcomes = gate_artifact(settings.bounds, attacked, name, output)
        missed += [outcome for outcome in outcomes if not outcome.met]
        common.say(f"{name}: {plural(len(outcomes), 'requirement')} judged; in {str(output)!r}")
    for outcome in missed:
        print(f"failed: {outcome.text}", file=sys.stderr, flush=True)
    return 3 if missed else 0
