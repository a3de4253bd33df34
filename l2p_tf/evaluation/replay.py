"""Replays saved adversarial images on a deployed model, to see whether it is fooled as the run's model was."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import os
import pathlib
from collections.abc import Callable

import numpy as np
import requests
import tensorflow as tf

from l2p_tf import artifacts
from l2p_tf.data.store import ImageData
from l2p_tf.environment import user_path
from l2p_tf.evaluation.records import CLEAN, COLUMNS, Record, images_of, read_records
from l2p_tf.inference import checked_images
from l2p_tf.layers.saved_model import load, signature_of
from l2p_tf.progress import bar
from l2p_tf.schema import read_arrays, reading
from l2p_tf.types import UserError

STAGE, RESULTS = "replay", "replay.json"
Ask = Callable[[np.ndarray], np.ndarray]
"""Maps images, uint8 or float32 in [0, 1], to classes, int (count,)."""
_BATCH = 128
_SECONDS = 60
_SIGNATURES = ("serving_default", "serve_uint8", "serve")


@dataclasses.dataclass(frozen=True)
class Replay:
    """One record's images, replayed on another model.

    Attributes:
      label: short name of the attack; `clean` for clean images.
      attack: its spec.
      repeat: repeat of the record.
      count: number of images.
      before: number of images the run's model got wrong when attacked.
      now: number of images the deployed model gets wrong.
      agree: number of images that both get right, or both wrong.
    """

    label: str
    attack: str
    repeat: int
    count: int
    before: int
    now: int
    agree: int


def replay(
    attack: artifacts.Artifact, data: ImageData, ask: Ask, name: str, output: str | os.PathLike[str]
) -> list[Replay]:
    """Replays the clean and adversarial images of an attack stage on a model, and saves the comparison.

    Args:
      attack: artifact of an attack stage that kept its images (`--save_images`).
      data: the data it attacked.
      ask: the model.
      name: name of the model, for the manifest.
      output: folder to create.

    Raises:
      UserError: no images were kept, they are damaged, or the model does not respond.
    """
    kept = attack.manifest["outputs"]
    records = [record for record in read_records(attack.path) if record.attack == CLEAN or images_of(record) in kept]
    if all(record.attack == CLEAN for record in records):
        raise UserError(
            f"{str(attack.path)!r} should hold adversarial images; attack with --save_images=uint8 or float32."
        )
    # Repeated every time, because a server's responses may change.
    timestamp = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
    inputs = {"attack": attack, "data": data.artifact}
    with artifacts.produce(output, STAGE, {"model": name, "shown": timestamp}, inputs, overwrite=True) as work:
        assert work is not None
        work.clear()
        with bar(f"replay on {name}", sum(record.count for record in records), "images") as advance:
            replays = [_shown(attack.path, record, data, ask, advance) for record in records]
        artifacts.write_json(work.path / RESULTS, [dataclasses.asdict(result) for result in replays])
    return replays


def asked(model: str, shape: tuple[int, ...]) -> Ask:
    """Returns a function that queries a model.

    Args:
      model: folder of an export or of a SavedModel, or address of a model served through TensorFlow Serving's REST
      interface, such as http://localhost:8501/v1/models/NAME.
      shape: shape of an image.

    Raises:
      UserError: there is no such model, or it takes other images.
    """
    if model.startswith(("http://", "https://")):
        return functools.partial(_served, model.rstrip("/").removesuffix(":predict") + ":predict")
    folder = user_path(model)
    loaded = load(next((place for place in (folder / "saved_model", folder) if place.is_dir()), folder))
    name = next((name for name in _SIGNATURES if name in loaded.signatures), "serving_default")
    function = signature_of(loaded, name)
    ((key, spec),) = function.structured_input_signature[1].items()
    if not spec.shape.is_compatible_with((None, *shape)):
        raise UserError(f"`--model` should take images of {'x'.join(map(str, shape))}. It takes: {spec.shape}")

    def ask(images: np.ndarray) -> np.ndarray:
        given = images if spec.dtype == tf.uint8 else checked_images(images)
        return _classes({name: np.asarray(value) for name, value in function(**{key: given}).items()}, len(images))

    return ask


def _served(address: str, images: np.ndarray) -> np.ndarray:
    """Queries a server for classes, sending pixels in [0, 1]."""
    try:
        response = requests.post(address, json={"instances": checked_images(images).tolist()}, timeout=_SECONDS)
        answer = response.json()
    except (requests.RequestException, ValueError) as error:
        raise UserError(f"{address} should answer: {' '.join(str(error).split())[:300]}") from error
    if response.status_code != requests.codes.ok or not isinstance(answer, dict) or "predictions" not in answer:
        reason = str(answer.get("error") if isinstance(answer, dict) else answer)[:300]
        raise UserError(f"{address} should answer predictions. It answers {response.status_code}: {reason}")
    rows = answer["predictions"]
    named = isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)
    try:
        outputs = {key: np.array([row[key] for row in rows]) for key in rows[0]} if named else {"": np.array(rows)}
        return _classes(outputs, len(images))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{address} should answer a class or a row of numbers for each image.") from error


def _classes(outputs: dict[str, np.ndarray], count: int) -> np.ndarray:
    """Extracts the classes from a model's outputs: named ones, or the argmax of the first row of scores per image."""
    named = outputs.get("predictions", outputs.get("classes"))
    if named is not None and named.shape == (count,) and named.dtype.kind in "iu":
        return named
    scores = outputs.get("probabilities", next((x for x in outputs.values() if x.ndim == 2 and len(x) == count), None))
    if scores is None or scores.dtype.kind != "f" or scores.shape[0] != count:
        shapes = ", ".join(f"{name} {value.dtype}{value.shape}" for name, value in outputs.items())
        raise UserError(f"The model should answer a class or a row of numbers for each image. It answers: {shapes}")
    return np.asarray(scores.argmax(-1))


def _shown(
    folder: pathlib.Path, record: Record, data: ImageData, ask: Ask, advance: Callable[..., None]
) -> Replay:  # fmt: skip
    wanted = {name: COLUMNS[name] for name in ("index", "label", "correct")}
    arrays = read_arrays(folder / record.arrays, wanted, "hold results per image", record.count)
    if record.attack == CLEAN:
        images = data.split(record.split)[0]
        pictures = lambda rows: images[arrays["index"][rows]]  # noqa: E731
    else:
        file = folder / images_of(record)
        with reading(file, "hold the adversarial images"):
            kept = np.load(file, mmap_mode="r", allow_pickle=False)
            if kept.shape != (record.count, *data.info.image_shape) or kept.dtype not in (np.uint8, np.float32):
                raise ValueError(f"they are {kept.dtype}{kept.shape}")
        pictures = lambda rows: np.array(kept[rows])  # noqa: E731
    answers = []
    for start in range(0, record.count, _BATCH):
        rows = np.arange(start, min(start + _BATCH, record.count))
        answers.append(ask(pictures(rows)))
        advance(len(rows))
    wrong, before = np.concatenate(answers) != arrays["label"], ~arrays["correct"]
    figures = (int(values.sum()) for values in (before, wrong, wrong == before))
    return Replay(record.label, record.attack, record.repeat, record.count, *figures)
