"""Library calls of the stages, with a line of output on the result of each."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
from typing import TYPE_CHECKING, Any

from l2p_tf.types import UserError
from stages import common, folders
from stages.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from l2p_tf.artifacts import Artifact
    from l2p_tf.certification.records import CertificateRecord
    from l2p_tf.data.store import ImageData
    from l2p_tf.defenses.base import DerivedDefense
    from l2p_tf.evaluation.options import EvaluationOptions
    from l2p_tf.experiments.reproduction import Reproduction
    from l2p_tf.fitting.options import TrainOptions
    from l2p_tf.imported.options import ImportOptions


def _finished(settings: Settings, output: pathlib.Path) -> str:
    """Returns what the line on a stage's result says of one that is finished already; to be asked before it is run."""
    return " (up to date)" if output.exists() and not settings.overwrite else ""


def _evaluated(settings: Settings, evaluate: Callable[..., Any], *arguments: Any, checkpoint: str) -> Any:
    """Calls an evaluation of the library with what all of them take, on all devices of this process."""
    with settings.devices.local_scope():
        return evaluate(
            *arguments, checkpoint=checkpoint, overwrite=settings.overwrite, share=settings.shared,
            other_data=bool(settings.data),
        )  # fmt: skip


def data(settings: Settings) -> ImageData:
    """Opens the data artifact: --data, or RUN_DIR/data, created from --dataset if missing."""
    from l2p_tf.data import DATASETS, ImageData, prepare

    if settings.data:
        return ImageData.open(settings.data)
    dataset = DATASETS.parse(settings.require("dataset"))
    if settings.image_size:
        if not hasattr(dataset, "image_size"):
            raise UserError(f"`--image_size` is no option of {dataset.name}, whose images are of one size.")
        dataset = dataset.replace(image_size=settings.image_size)
    with settings.devices.chief_first():
        artifact = prepare(
            dataset, settings.folder / "data", data_dir=settings.data_dir, download=settings.download,
            seed=settings.seed, validation_share=settings.validation_share,
            overwrite=settings.overwrite and settings.devices.is_chief, limit_train=settings.limit_train,
            limit_test=settings.limit_test, stream=settings.stream, say=lambda text: common.say(f"data: {text}"),
        )  # fmt: skip
    opened = ImageData.open(artifact.path)
    common.say(opened.info.summary())
    return opened


def made_data(settings: Settings) -> ImageData:
    """Opens the data artifact unchanged: --data or RUN_DIR/data; creates it from --dataset only if missing."""
    from l2p_tf.data import ImageData

    made = settings.folder / "data"
    return ImageData.open(made) if made.exists() and not settings.data else data(settings)


def import_models(settings: Settings, wanted: dict[str, ImportOptions], images: ImageData) -> dict[str, Artifact]:
    """Returns the runs of models from elsewhere by name, importing those that are not finished."""
    from l2p_tf.contract import FITS
    from l2p_tf.imported.run import contract_of, import_model

    made = {}
    for name, options in wanted.items():
        output = settings.folder / name / "train"
        state = _finished(settings, output)
        with settings.devices.chief_first():
            made[name] = import_model(options, images, output, settings.overwrite and settings.devices.is_chief)
        common.say(f"{name}: imported from {made[name].options['model']}{state}; in {str(output)!r}")
        for finding in contract_of(made[name]):
            common.say(f"  {finding.check}{'' if finding.verdict == FITS else f' ({finding.verdict})'}: {finding.text}")
    return made


def train(settings: Settings, options: TrainOptions, images: ImageData) -> Artifact:
    """Trains one run, derives it from another, or finds it finished."""
    from l2p_tf import artifacts
    from l2p_tf.defenses.base import DerivedDefense
    from l2p_tf.fitting.run import train as train_it

    if isinstance(options.defense, DerivedDefense):
        return _derive(settings, options, options.defense, images)
    name = options.name
    output = settings.folder / name / "train"
    finished = (output / artifacts.MANIFEST).is_file() and not settings.overwrite
    before = artifacts.read(output, "train", verify=False) if finished else None
    artifact = train_it(
        options,
        images,
        output,
        jit_compile=settings.jit_compile,
        checkpoint_minutes=settings.checkpoint_minutes,
        overwrite=settings.overwrite,
        devices=settings.devices,
    )
    notes = artifact.manifest["notes"]
    state = f"{notes['images_per_second']:.0f} images/s"
    if before:
        same = before.fingerprint == artifact.fingerprint
        state = "up to date" if same else f"continued from {before.options['epochs']} to {options.epochs} epochs"
    ended = f"stopped after {notes['epochs']} epochs, " if notes["epochs"] < options.epochs else ""
    common.say(
        f"{name}: trained, {notes['parameters']:,} parameters, {ended}best epoch {notes['best_epoch'] + 1} "
        f"(validation {100 * notes['best_validation']:.1f}%), {state}; in {str(output)!r}"
    )
    return artifact


def check_source(options: TrainOptions, known: list[str]) -> None:
    """Raises UserError if a defense is derived from its own run, or from an unknown one."""
    from l2p_tf.defenses.base import DerivedDefense

    defense = options.defense
    known = [run for run in dict.fromkeys(known) if run != options.name]
    if isinstance(defense, DerivedDefense) and defense.run not in known:
        raise UserError(
            f"`run` of {options.name} should name a run that is trained before it, of "
            f"{', '.join(known) or 'none there is'}. Received: {defense.run!r}"
        )


def _derive(settings: Settings, options: TrainOptions, defense: DerivedDefense, images: ImageData) -> Artifact:
    from l2p_tf.fitting.derive import derive

    check_source(options, trained_names(settings))
    output = settings.folder / options.name / "train"
    state = _finished(settings, output)
    with settings.devices.chief_first():
        artifact = derive(
            options.name, defense, trained(settings, defense.run), images, output, seed=options.seed,
            published=options.published, overwrite=settings.overwrite and settings.devices.is_chief,
            sweep=options.sweep,
        )  # fmt: skip
    common.say(f"{options.name}: made from {defense.run}{state}; in {str(output)!r}")
    return artifact


def trained(settings: Settings, name: str) -> Artifact:
    """Returns the finished training of a run."""
    from l2p_tf import artifacts

    return artifacts.read(settings.folder / name / "train", "train")


def run_name(settings: Settings) -> str:
    """Returns the run that a stage after training works on: --name, that of --defense, or the only one in RUN_DIR."""
    if settings.name:
        return settings.run_name()
    known = list(settings.trainings) if settings.defense else trained_names(settings)
    if len(known) == 1:
        return known[0]
    where = "of those the flags describe" if settings.defense else f"in {str(settings.folder)!r}"
    raise UserError(f"`--name` should be the run that is meant, {where}: {', '.join(known) or 'there is none'}.")


def trained_names(settings: Settings) -> list[str]:
    """Returns the runs in RUN_DIR with a finished training."""
    from l2p_tf import artifacts, files

    names = {path.parent.parent.name for path in settings.folder.glob(f"*/train/{artifacts.MANIFEST}")}
    return sorted(name for name in names if not files.is_hidden(name))


def check_generators(settings: Settings, known: list[str]) -> None:
    """Raises UserError if an attack uses the generator of an unknown run in RUN_DIR."""
    for attack in settings.evaluation.attacks:
        run = getattr(attack, "run", None)
        if run is None:
            continue
        folder = pathlib.Path(run)
        if not run or (folder.parent.resolve() == settings.folder.resolve() and folder.name not in known):
            wanted = ", ".join(dict.fromkeys(known)) or "none there is"
            raise UserError(f"`run` of the attack {attack.spec} should be a run of {wanted}. Received: {run!r}")


def other_data(run: Artifact, images: ImageData) -> str:
    """Returns the name of data that differ from a run's training data; empty if they are the same."""
    from l2p_tf.evaluation.other_data import is_other

    return images.info.name if is_other(run, images) else ""


def show_tables(settings: Settings, folders: list[pathlib.Path], names: list[str]) -> None:
    """Prints the tables of finished attack or transfer stages of some runs."""
    from rich.console import Console

    from l2p_tf.reporting.console import show
    from l2p_tf.reporting.load import find, gather
    from l2p_tf.reporting.results import Results

    if not settings.devices.is_chief:
        return
    trained_runs = [settings.folder / name / "train" for name in names]
    show(Results(gather(find([*folders, *trained_runs]))), Console())


def attack(settings: Settings, name: str, run: Artifact, images: ImageData) -> None:
    """Attacks one run with every backend, or finds it finished."""
    from l2p_tf.evaluation.backends import backend

    for whose, checkpoint in itertools.product(settings.backends, settings.checkpoints):
        options = settings.evaluation
        options = dataclasses.replace(options, attacks=backend(whose, options.attacks))
        folder = folders.attack(settings, name, whose, checkpoint, other_data(run, images))
        attack_into(settings, folder, options, name, run, images, checkpoint)


def attack_into(
    settings: Settings, output: pathlib.Path, options: EvaluationOptions, name: str, run: Artifact, images: ImageData,
    checkpoint: str,
) -> None:  # fmt: skip
    """Attacks one model of a run with the given options, or finds it finished."""
    from l2p_tf import artifacts
    from l2p_tf.evaluation.evaluate import attack_artifact
    from l2p_tf.reporting.format import among_training, plural

    state = _finished(settings, output)
    before = artifacts.read(output, "attack", verify=False).options["attacks"] if state else []
    _evaluated(settings, attack_artifact, options, run, images, output, checkpoint=checkpoint)
    made = artifacts.read(output, verify=False)
    joined = len(made.options["attacks"]) - len(before)
    if state and joined:
        state = f" ({plural(joined, 'attack')} joined {len(before)})"
    common.say(f"{name}: attacked{state}; in {str(output)!r}")
    for facts in made.manifest["notes"].get("other_data", {}).values():
        common.say(f"{name}: judged on other images, those of {images.info.title}: {among_training(facts)}")


def check(settings: Settings, name: str, run: Artifact, images: ImageData) -> None:
    """Runs the gradient masking checks on one run, or finds them finished; does nothing without --checks."""
    options = settings.masking_checks
    if options is None:
        return
    from l2p_tf.evaluation.masking.record import FAIL, PASS
    from l2p_tf.evaluation.masking.stage import check_artifact

    for checkpoint in settings.checkpoints:
        output = folders.place(settings, name, "checks", checkpoint, other_data(run, images))
        state = _finished(settings, output)
        inspection = _evaluated(settings, check_artifact, options, run, images, output, checkpoint=checkpoint)
        verdicts = [finding.verdict for finding in inspection.findings]
        common.say(
            f"{name}: checked for gradient masking{state}, {verdicts.count(PASS)} passed, "
            f"{verdicts.count(FAIL)} failed; in {str(output)!r}"
        )


def certify(
    settings: Settings, name: str, run: Artifact, images: ImageData, *, fitting_only: bool = False
) -> list[CertificateRecord]:
    """Computes the certificates of --certify for one run, or finds them finished; returns their records.

    With `fitting_only`, those that do not fit the run are skipped, with a line that says why.
    """
    from l2p_tf.certification import run as certification

    options = settings.certification
    if options and fitting_only:
        kept, reasons = certification.fitting(options.certificates, run, settings.checkpoints[0])
        for reason in reasons:
            common.say(f"{name}: not certified: {reason}")
        options = dataclasses.replace(options, certificates=tuple(kept))
    if not options or not options.certificates:
        return []
    output = folders.place(settings, name, "certify", other_data(run, images))
    state, checkpoint = _finished(settings, output), settings.checkpoints[0]
    records: list[CertificateRecord] = _evaluated(
        settings, certification.certify_artifact, options, run, images, output, checkpoint=checkpoint
    )
    common.say(f"{name}: certified{state}; in {str(output)!r}")
    return records


def show_certificates(folder: pathlib.Path, records: list[CertificateRecord]) -> None:
    """Prints the certified accuracy at some radii."""
    from rich.console import Console
    from rich.table import Table

    from l2p_tf.certification.records import certified_accuracy, read_certified

    table = Table(title="Certified accuracy in percent", title_justify="left")
    table.add_column("l2 radius", justify="right")
    for record in records:
        table.add_column(f"{record.label}\nn = {record.count:,}", justify="right")
    results = [read_certified(folder, record) for record in records]
    for radius in (0.0, 0.25, 0.5, 0.75, 1.0, 1.5):
        shares = [certified_accuracy(a["label"], a["prediction"], a["radius"], radius) for a in results]
        table.add_row(f"{radius:g}", *(f"{100 * share:.1f}" for share in shares))
    Console().print(table)


def transfer(settings: Settings, sources: list[str], runs: dict[str, Artifact], images: ImageData) -> None:
    """Makes examples on each source and evaluates them on each run, or finds them finished."""
    from l2p_tf.attacks.corruption import Corruption

    output, options = transfer_folder(settings, runs, images), settings.evaluation
    attacks = tuple(attack for attack in options.attacks if not isinstance(attack, Corruption))
    options = dataclasses.replace(options, attacks=attacks)
    transfer_into(settings, output, options, sources, runs, images, settings.checkpoints[0])


def transfer_folder(settings: Settings, runs: dict[str, Artifact], images: ImageData) -> pathlib.Path:
    """Returns the folder of transferred examples."""
    others = {other_data(run, images) for run in runs.values()} - {""}
    return settings.folder / "_".join(["transfer", *others])


def transfer_into(
    settings: Settings, output: pathlib.Path, options: EvaluationOptions, sources: list[str],
    runs: dict[str, Artifact], images: ImageData, checkpoint: str,
) -> None:  # fmt: skip
    """As `transfer`, into a given folder with given options."""
    from l2p_tf.evaluation.transfer import transfer_artifact

    state = _finished(settings, output)
    _evaluated(settings, transfer_artifact, options, sources, runs, images, output, checkpoint=checkpoint)
    common.say(f"transfer: shown{state}; in {str(output)!r}")


def check_export(settings: Settings) -> None:
    """Raises UserError if an export in RUN_DIR could not be loaded, or made in one of --formats."""
    from l2p_tf import formats
    from l2p_tf.serving import check_folder

    formats.check(settings.formats)
    check_folder(settings.folder)


def export(settings: Settings, name: str, run: Artifact, images: ImageData, *, fitting_only: bool = False) -> None:
    """Exports one run, or finds it done; with `fitting_only` in those of --formats that can hold its noise."""
    from l2p_tf.certification.signature import computed_smoothing
    from l2p_tf.serving import CARD, CERTIFY, SAVED_MODEL
    from l2p_tf.serving import export as export_it

    if not settings.devices.is_chief:
        return
    output, kinds = settings.folder / name / "export", settings.formats
    if fitting_only and run.manifest["notes"].get("randomized") and set(kinds) != {"savedmodel"}:
        common.say(f"{name}: exported as SavedModel alone, as it has noise")
        kinds = []
    export_it(
        run,
        output,
        checkpoint=settings.checkpoints[0],
        draws=settings.export_draws,
        class_names=images.info.class_names,
        kinds=kinds,
        certificate=computed_smoothing(folders.place(settings, name, "certify")),
        overwrite=settings.overwrite,
    )
    common.say(f"{name}: exported; SavedModel in {str(output / SAVED_MODEL)!r}")
    left_out = json.loads((output / CARD).read_bytes()).get(CERTIFY, {}).get("left_out")
    if left_out:
        common.say(f"{name}: exported without certified radii: {left_out}")


def report(
    settings: Settings,
    folders: list[str],
    overwrite: bool,
    output: pathlib.Path | None = None,
    reproduction: Reproduction | None = None,
) -> None:
    """Reports all finished results in some folders."""
    from rich.console import Console

    from l2p_tf.experiments import published
    from l2p_tf.reporting import report as reporting
    from l2p_tf.reporting.console import show

    if not settings.is_chief:
        return
    how = {"seed": settings.seed, "overwrite": overwrite, **settings.matched}
    if reproduction:
        how |= {"title": reproduction.title, "sections": reproduction.sections, "described": reproduction.described}
    else:
        how |= {"sections": [published.section], "title": settings.title}
    made = reporting.make(folders, output or settings.folder / "report", **how)
    show(made.results, Console(), made.sections)
    for path in made.left_out:
        common.say(f"Left out, not finished: {str(path)!r}")
    for path in made.cards:
        common.say(f"Model card: {str(path)!r}")
    page = str(made.path / reporting.HTML)
    common.say(f"Report: {page}" + ("" if made.made else " (up to date)"))
