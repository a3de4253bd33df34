"""Describes what an experiment needs, what exists, and the estimated time for the rest."""

from __future__ import annotations

import contextlib
import json
import pathlib
from typing import TYPE_CHECKING

from l2p_tf import artifacts
from l2p_tf.types import UserError

if TYPE_CHECKING:
    from l2p_tf.data.store import ImageData
    from stages.plan import Plan

_DONE, _BEGUN, _MISSING, _OTHER = "done", "begun", "missing", "made with other options"


def lines(plan: Plan, images: ImageData) -> list[str]:
    """Returns one line per run, then what remains to be done.

    Args:
      plan: the experiment.
      images: its data.
    """
    from l2p_tf.experiments import estimate
    from l2p_tf.reporting.format import duration, plural

    info = images.info
    shape, classes = info.image_shape, info.num_classes
    width = max(map(len, plan.runs))
    texts = [f"{plan.experiment.title}: {plan.experiment.about}. {plural(len(plan.runs), 'run')}:"]
    left, missing = 0.0, 0
    for name, run in plan.runs.items():
        train, done = _trained(plan, name)
        attacks = [_state(plan.attack_folder(name, checkpoint)) for checkpoint in run.settings.checkpoints]
        attack = _DONE if set(attacks) == {_DONE} else _MISSING if set(attacks) == {_MISSING} else _BEGUN
        seconds = 0.0
        if train != _DONE:
            estimated = estimate.training_seconds(run.options, info.counts["train"], shape, classes)
            seconds += estimated * (1 - done / run.options.epochs)
        if attack != _DONE:
            judged = info.counts[run.evaluation.split]
            seconds += len(attacks) * estimate.attack_seconds(run.evaluation, run.options, judged, shape, classes)
        left, missing = left + seconds, missing + (seconds > 0)
        about = f", about {duration(seconds)}" if seconds else ""
        texts.append(
            f"  {name:{width}}  training {train}, {plural(len(run.evaluation.attacks), 'attack')} {attack}{about}"
        )
    groups = [_state(folder) for folder in plan.transfer_folders()]
    open_groups = sum(state != _DONE for state in groups)
    if groups:
        done = len(groups) - open_groups
        texts.append(f"  {plural(len(groups), 'transfer')} of adversarial images, {done} of them done")
    todo = [plural(missing, "run")] * (missing > 0) + [plural(open_groups, "transfer")] * (open_groups > 0)
    rest = f"about {duration(left)} for the runs here at {estimate.product_rate() / 1e9:,.0f} GFLOP/s, a rough figure"
    texts.append(f"Missing: {' and '.join(todo)}; {rest}." if todo else "Nothing is missing.")
    return texts


def _trained(plan: Plan, name: str) -> tuple[str, int]:
    """Returns the state of a training and the number of its finished epochs; other options make it useless."""
    from l2p_tf.defenses.base import DerivedDefense
    from l2p_tf.fitting.extend import check_extends

    folder, options = plan.train_folder(name), plan.runs[name].options
    state = _state(folder)
    if state != _DONE or isinstance(options.defense, DerivedDefense):
        return state, 0
    made, wanted = artifacts.read(folder, "train", verify=False), json.loads(json.dumps(options.as_json()))
    if all(made.options.get(key) == value for key, value in wanted.items()):
        return state, options.epochs
    with contextlib.suppress(UserError):
        if check_extends(made, wanted):
            done = int(made.options["epochs"])
            return f"to go on from epoch {done}", done
    return _OTHER, 0


def _state(folder: pathlib.Path) -> str:
    if (folder / artifacts.MANIFEST).is_file():
        return _DONE
    return _BEGUN if artifacts.partial_path(folder).exists() else _MISSING
