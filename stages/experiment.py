"""Plans and runs an experiment: all trainings and attacks for a paper's table or figure, and its report."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from l2p_tf.types import UserError
from stages import calls, common, configs, folders, outlook, settings
from stages.plan import Plan, Planned

if TYPE_CHECKING:
    from l2p_tf.artifacts import Artifact
    from l2p_tf.attacks.base import Attack
    from l2p_tf.experiments.definition import Experiment
    from l2p_tf.experiments.reproduction import Reproduction
    from l2p_tf.experiments.scales import Scale
    from stages.settings import Settings

_OWN = ("experiment", "scale", "dry_run")
_REFUSED = (
    "name", "model", "defense", "sweep", "sweep_shard", "published", "backend", "transfer", "certify", "export", "runs",
    "title", "dataset",
)  # fmt: skip
"""Flags that an experiment sets itself, or does not support."""


def folder() -> pathlib.Path:
    """Returns the folder of the experiment definitions."""
    return configs.FOLDER / "experiments"


def listed() -> str:
    """Lists the experiments with their titles, for `--experiment=help`."""
    from l2p_tf.experiments import definition

    experiments = [definition.load(folder(), name) for name in definition.names(folder())]
    width = max((len(one.name) for one in experiments), default=0)
    return "\n".join(f"{one.name:{width}}  {one.title}: {one.about}" for one in experiments)


def main(flags: Settings) -> None:
    """Runs --experiment: prints what exists and what is missing, creates that, and reports."""
    plan = planned(flags)
    settings.start(plan.first.settings)
    images = calls.data(plan.first.settings)
    for text in outlook.lines(plan, images):
        common.say(text)
    if flags.dry_run:
        return
    runs = {name: calls.train(entry.settings, entry.options, images) for name, entry in plan.runs.items()}
    for (name, checkpoint), folder in plan.attack_folders().items():
        calls.attack_into(flags, folder, plan.runs[name].evaluation, name, runs[name], images, checkpoint)
    checked = []
    for name, entry in plan.runs.items():
        calls.check(entry.settings, name, runs[name], images)
        checked += folders.checks(entry.settings, name)
    for group, folder in zip(plan.experiment.transfer, plan.transfer_folders(), strict=True):
        first = plan.runs[group.sources[0]]
        checkpoint = first.settings.checkpoints[0]
        members = {name: runs[name] for name in dict.fromkeys([*group.sources, *group.targets])}
        calls.transfer_into(flags, folder, first.evaluation, list(group.sources), members, images, checkpoint)
    made = [images.artifact.path, *(run.path for run in runs.values()), *plan.attack_folders().values()]
    calls.report(
        plan.first.settings,
        [str(path) for path in [*made, *checked, *plan.transfer_folders()]],
        overwrite=True,
        output=plan.run_dir / "reports" / plan.experiment.name,
        reproduction=_reproduction(plan, runs),
    )


def planned(flags: Settings) -> Plan:
    """Plans --experiment with the other flags of the command line.

    Raises:
      UserError: there is no such experiment, or its parts are inconsistent.
    """
    from l2p_tf.experiments import definition
    from l2p_tf.experiments.scales import SCALES

    name = flags.experiment
    experiment = definition.load(folder(), name)
    scale = SCALES.parse(flags.scale)
    refused = [flag for flag in _REFUSED if flag in flags.given]
    if refused:
        raise UserError(
            f"`--{refused[0]}` should not be given with --experiment, whose runs, attacks and data are those of "
            f"{name}. Received: {getattr(flags, refused[0])!r}"
        )
    runs: dict[str, Planned] = {}
    for file in dict.fromkeys(member.flags for member in experiment.runs):
        runs |= _of_file(experiment, scale, file, flags)
    missing = {n for group in experiment.transfer for n in [*group.sources, *group.targets]} - set(runs)
    if missing:
        raise UserError(
            f"`transfer` of experiment {name} should name its runs: {', '.join(runs)}. Received: {sorted(missing)[0]!r}"
        )
    places = [place for one in runs.values() for place in one.places if any(place)]
    twice = [place for place in places if places.count(place) > 1]
    if twice:
        raise UserError(f"Experiment {name} should have one run in each place of its table. Received twice: {twice[0]}")
    plan = Plan(experiment, scale, runs)
    plan.first.settings.check()  # Report bad flags before the first training, not after it.
    return plan


def _of_file(experiment: Experiment, scale: Scale, file: str, flags: Settings) -> dict[str, Planned]:
    """Returns an experiment's runs from one flag file, including those they are derived from."""
    from l2p_tf.fitting.options import TrainOptions

    attacks = [f"--attacks={experiment.attacks}"] if experiment.attacks else []
    given = flags.arguments(but=_OWN)
    arguments = [f"--config={file}", *attacks, *experiment.settings, *scale.flags, *given]
    own = settings.read(arguments)
    if "run_dir" not in flags.given:
        data = re.sub(r"\W+", "_", own.require("dataset")).strip("_")
        own = settings.read([*arguments, f"--run_dir={pathlib.Path('runs', 'papers', data)}"])
    family, evaluation = own.trainings, own.evaluation
    if "attacks" not in flags.given:
        evaluation = dataclasses.replace(evaluation, attacks=_distinct(scale.attack(a) for a in evaluation.attacks))
    members = [member for member in experiment.runs if member.flags == file]
    unknown = sorted({member.run for member in members} - set(family) - {""})
    if unknown:
        raise UserError(
            f"Experiment {experiment.name} should name runs of {file}: {', '.join(family)}. Received: {unknown[0]!r}"
        )
    # Values from the command line are not scaled.
    fixed = {field.name for field in dataclasses.fields(TrainOptions)} & set(flags.given)
    kept = {
        options.name: dataclasses.replace(options, **{key: getattr(family[options.name], key) for key in fixed})
        for options in scale.trainings(list(family.values()))
    }
    places = {
        name: tuple((member.row, member.column) for member in members if member.run in ("", name)) for name in kept
    }
    sources = {getattr(kept[name].defense, "run", "") for name, spots in places.items() if spots}
    names = {name: file if len(family) == 1 else f"{file}-{name}" for name in kept}
    runs = {}
    for name, options in kept.items():
        if not places[name] and name not in sources:
            continue
        source = getattr(options.defense, "run", "")
        defense = options.defense.replace(run=names[source]) if source else options.defense
        training = dataclasses.replace(options, name=names[name], defense=defense)
        runs[names[name]] = Planned(training, evaluation, own, places[name])
    return runs


def _distinct(attacks: Iterable[Attack]) -> tuple[Attack, ...]:
    """Removes duplicates: scaling may make two attacks equal."""
    return tuple({attack.spec: attack for attack in attacks}.values())


def _reproduction(plan: Plan, runs: dict[str, Artifact]) -> Reproduction:
    from l2p_tf.attacks import ATTACKS
    from l2p_tf.evaluation.records import CLEAN
    from l2p_tf.experiments.printed import load
    from l2p_tf.experiments.reproduction import Reproduction, measures
    from l2p_tf.experiments.scales import Paper
    from l2p_tf.registry import spec_of

    experiment = plan.experiment
    table = load()[experiment.prints] if experiment.prints else None
    specs = {measure.attack for measure in (measures(experiment, table) if table else experiment.measured)}
    specs |= {getattr(claim, "attack", "") for claim in experiment.claims}
    attacks = {
        spec: tuple(dict.fromkeys(plan.scale.attack(attack).spec for attack in ATTACKS.parse_list(spec)))
        for spec in specs - {"", CLEAN}
    }
    return Reproduction(
        experiment,
        {name: run.fingerprint for name, run in runs.items()},
        {name: one.places for name, one in plan.runs.items()},
        {**attacks, CLEAN: (CLEAN,)},
        table,
        "" if plan.scale == Paper() else spec_of(plan.scale),
    )
