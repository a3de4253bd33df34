"""Python API: evaluates or hardens a model in one call."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from rich.console import Console

from l2p_tf import artifacts, inference
from l2p_tf.arrays import arrays_of
from l2p_tf.attacks import ATTACKS, Attack
from l2p_tf.contract import FITS
from l2p_tf.data import ImageData, prepare
from l2p_tf.data.npz import Npz
from l2p_tf.defenses import DEFENSES, Defense
from l2p_tf.environment import user_path
from l2p_tf.evaluation.evaluate import attack_artifact
from l2p_tf.evaluation.gate import Outcome, judge, parse_bounds
from l2p_tf.evaluation.masking.stage import check_artifact
from l2p_tf.evaluation.options import CheckOptions, EvaluationOptions
from l2p_tf.evaluation.records import MOST_CLASSES
from l2p_tf.fitting.options import TrainOptions
from l2p_tf.fitting.run import train
from l2p_tf.imported.options import ImportOptions
from l2p_tf.imported.run import BEST, contract_of, import_model
from l2p_tf.models.file import File
from l2p_tf.models.saving import load_classifier
from l2p_tf.reporting.console import show
from l2p_tf.reporting.load import find, gather
from l2p_tf.reporting.report import TITLE, make
from l2p_tf.reporting.results import Results

Attacks = str | Attack | Sequence[Attack | str]
_EIGHT_BITS = 0.02
"""Maximum distance of a float from the multiple of 1/255 it represents, in 255ths."""


class Evaluated(Results):
    """Results of `evaluate`: pandas frames as from `l2p_tf.results`, printable as a table, or written as a page.

    Attributes:
      folder: its folder; a temporary one is deleted with this object.
    """

    def __init__(self, folder: pathlib.Path, temporary: bool = False) -> None:
        super().__init__(gather(find([folder])))
        self.folder = folder
        if temporary:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def __str__(self) -> str:
        text = io.StringIO()
        show(self, Console(file=text, width=100, force_jupyter=False, force_terminal=False))
        return text.getvalue().rstrip()

    def require(self, accuracies: str) -> list[Outcome]:
        """Checks accuracy requirements, such as "autoattack>=0.45; clean>=0.9".

        Args:
          accuracies: as in `--require`: names or specs of attacks, `clean`, or `worst` for all together.

        Returns:
          An outcome for each: `met` if the lower end of the 95% interval reaches it, and a one-line `text`.

        Raises:
          UserError: the text is malformed, or names an attack that was not run.
        """
        (run,) = {str(name) for name in self.records.model}
        attacked = [artifact for artifact in find([self.folder]) if artifact.stage == "attack"]
        return judge(parse_bounds(accuracies), attacked, run)

    def report(self, folder: str | os.PathLike[str], title: str = TITLE) -> pathlib.Path:
        """Writes the report: one page, `report.html` in `folder`, and its tables and plots.

        Returns:
          The page.

        Raises:
          UserError: the folder holds another report, or other files.
        """
        return make([self.folder], folder, title).path / "report.html"


def evaluate(
    model: keras.Model | str | os.PathLike[str],
    images: Any,
    labels: Any = None,
    *,
    attacks: Attacks = "fgsm; pgd(steps=20)",
    checks: int = 100,
    checks_epsilon: float | None = None,
    name: str = "model",
    folder: str | os.PathLike[str] | None = None,
    input_range: str = "auto",
    class_names: Sequence[str] = (),
    custom_objects: str = "",
    seed: int = 0,
    **options: Any,
) -> Evaluated:
    """Evaluates the robustness of a classifier, and whether the result can be trusted.

    The model is first examined as by `stages.importer`: a final softmax is removed, the expected pixel range is
    determined on the labeled images, and hidden randomness is detected; corrections and doubts are reported as
    warnings.

    Args:
      model: a Keras model with weights, or a value of `--model_file`: path of a .keras or .h5 file, of a SavedModel, or
      a preset.
      images: uint8, or floats in [0, 1], (count, height, width, channels) with 1 or 3 channels, whatever range the
      model itself expects; or a `tf.data.Dataset` of such images and labels. Images are stored in 8 bits, to which
      floats are rounded.
      labels: integers (count,); None with a data set.
      attacks: specs as in `--attacks`, such as "autoattack(epsilon=8/255); cw", or attacks.
      checks: number of images for gradient masking checks, at least 10; 0 for none.
      checks_epsilon: l_inf radius of the checks; None takes that of the first l_inf attack, or 8/255.
      name: name of the model in tables.
      folder: keeps all results, so that the same call resumes, and later attacks are added; None for a temporary one.
      input_range: pixel range the model expects; `auto` determines it.
      class_names: names of the classes, in the order of the model's outputs; by default their indices.
      custom_objects: a Python file with classes that a model file needs; its code is executed.
      seed: seed of everything random.
      **options: options of `EvaluationOptions`, such as `repeats`, `batch_size`, `prediction_draws` or `bpda`.

    Returns:
      The results: `print(result)`, `result.records`, `result.report("page")`.

    Raises:
      UserError: an argument is invalid, or the model cannot be used.
    """
    wanted = EvaluationOptions(attacks=_attacks(attacks), seed=seed, **options)
    wanted_checks = None
    if checks:
        wanted_checks = CheckOptions(
            count=checks, epsilon=checks_epsilon or _linf(wanted.attacks), seed=seed, batch_size=wanted.batch_size,
            prediction_draws=wanted.prediction_draws, jit_compile=wanted.jit_compile, bpda=wanted.bpda,
        )  # fmt: skip
    place = pathlib.Path(tempfile.mkdtemp(prefix="l2p_tf-")) if folder is None else user_path(folder)
    data = _data(model, *arrays_of(images, labels), "test", class_names, place, seed)
    how = ImportOptions(
        name=name, input_range=input_range, custom_objects=custom_objects, seed=seed, model_file=_file(model)
    )
    run = _imported(model, how, data, place / name)
    attack_artifact(wanted, run, data, place / name / "attack")
    if wanted_checks:
        check_artifact(wanted_checks, run, data, place / name / "checks")
    return Evaluated(place, temporary=folder is None)


def harden(
    model: keras.Model | str | os.PathLike[str],
    images: Any,
    labels: Any = None,
    *,
    defense: str | Defense = "pgd",
    epochs: int = 10,
    learning_rate: float = 0.01,
    noise_after: Sequence[str] = (),
    validation_share: float = 0.1,
    folder: str | os.PathLike[str] | None = None,
    input_range: str = "auto",
    seed: int = 0,
    **options: Any,
) -> keras.Model:
    """Trains a robust classifier, starting from a model's weights.

    The model itself is not changed. A defense with noise on pixels or activations adds its layers inside.

    Args:
      model: a functional or Sequential Keras model of Keras's own layers, or the path of one.
      images: as in `evaluate`.
      labels: integers (count,); None with a data set.
      defense: its spec, such as "trades(epsilon=8/255)", or a defense.
      epochs: number of epochs.
      learning_rate: initial learning rate; lower than for random weights.
      noise_after: patterns of the names of layers after which noise is added; by default the first convolution and
      every residual sum.
      validation_share: share of the images held out to choose the best epoch.
      folder: keeps the training, so that the same call resumes; None for a temporary one.
      input_range: pixel range the model expects; `auto` determines it.
      seed: seed of everything random.
      **options: options of `TrainOptions`, such as `batch_size`, `drops` or `validation_attack`.

    Returns:
      The trained model, from float32 images in [0, 1] to logits. It is randomized if the defense adds noise; then
      `import l2p_tf` before `import keras` to load it after saving.

    Raises:
      UserError: an argument is invalid, or the model cannot be trained.
    """
    with contextlib.ExitStack() as kept:
        if folder is None:
            folder = kept.enter_context(tempfile.TemporaryDirectory(prefix="l2p_tf-"))
        place = user_path(folder)
        data = _data(model, *arrays_of(images, labels), "train", (), place, seed, validation_share)
        how = ImportOptions(name="before", input_range=input_range, seed=seed, model_file=_file(model))
        _imported(model, how, data, place / "before")
        architecture = File(path=str(place / "before"), noise_after=tuple(noise_after))
        given = DEFENSES.parse(defense) if isinstance(defense, str) else defense
        options.setdefault("batch_size", min(128, data.info.counts["train"]))
        wanted = TrainOptions(
            name="hardened", model=architecture, defense=given, epochs=epochs, learning_rate=learning_rate, seed=seed,
            **options,
        )  # fmt: skip
        return load_classifier(train(wanted, data, place / "hardened" / "train").path / BEST)


def _attacks(attacks: Attacks) -> tuple[Attack, ...]:
    listed = (attacks,) if isinstance(attacks, str | Attack) else attacks
    return tuple(a for spec in listed for a in (ATTACKS.parse_list(spec) if isinstance(spec, str) else (spec,)))


def _linf(attacks: Sequence[Attack]) -> float | None:
    """Returns the radius of the first l_inf attack, or None."""
    facts = [attack.facts() for attack in attacks]
    radii = [float(fact["epsilon"]) for fact in facts if fact["norm"] == "linf" and fact["epsilon"]]
    return next((radius for radius in radii if radius < 1), None)


def _file(model: Any) -> str:
    return "" if isinstance(model, keras.Model) else os.fspath(model)


def _imported(model: Any, options: ImportOptions, data: ImageData, folder: pathlib.Path) -> artifacts.Artifact:
    """Imports a model as a run, with a warning for each problem."""
    given = None if options.model_file else model
    run = import_model(options, data, folder / "train", model=given)
    for finding in contract_of(run):
        if finding.verdict != FITS:
            warnings.warn(f"{finding.check}: {finding.text}", UserWarning, stacklevel=3)
    return run


def _data(
    model: Any, images: Any, labels: Any, split: str, class_names: Sequence[str], place: pathlib.Path, seed: int,
    validation_share: float = 0.1,
) -> ImageData:  # fmt: skip
    """Stores images and labels as a data artifact in a folder."""
    images = inference.check_images(images)
    if images.dtype != np.uint8:
        exact = images.astype(np.float32) * np.float32(255)
        levels = np.round(exact)
        if np.abs(exact - levels).max() > _EIGHT_BITS:
            warnings.warn("Images are stored in 8 bits: floats between were rounded.", UserWarning, stacklevel=3)
        images = levels.clip(0, 255).astype(np.uint8)
    labels = inference.checked_labels(labels, len(images), MOST_CLASSES)
    names = tuple(class_names) or tuple(map(str, range(max(_outputs(model), int(labels.max()) + 1))))
    place.mkdir(parents=True, exist_ok=True)
    file = place / "images.npz"
    arrays = {f"x_{split}": images, f"y_{split}": labels}
    artifacts.atomic_write(file, lambda stream: np.savez(stream, **arrays))
    dataset = Npz(path=str(file), title="images", class_names=names)
    prepared = prepare(dataset, place / "data", seed=seed, validation_share=validation_share)
    return ImageData.open(prepared.path)


def _outputs(model: Any) -> int:
    """Returns the number of classes according to the model's layers; 0 if unknown."""
    outputs = getattr(model, "outputs", None) or ()
    count = outputs[0].shape[-1] if len(outputs) == 1 else None
    return 2 if count == 1 else count or 0
