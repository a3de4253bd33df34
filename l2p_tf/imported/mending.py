"""Converts a model of any kind to a classifier of this toolkit, and reports findings."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.optimize import linear_sum_assignment

from l2p_tf.classifier import WITH_NOISE, AdaptedClassifier, as_classifier, check_inputs, findings_of, is_answer
from l2p_tf.contract import BEWARE, CLASSES, FITS, INPUT, MENDED, NOISE, OUTPUTS, Finding
from l2p_tf.imported import ranges
from l2p_tf.imported.opening import Opened, pick, quietly
from l2p_tf.imported.options import ImportOptions
from l2p_tf.inference import batches
from l2p_tf.layers.in_training import is_graph, keep_noise
from l2p_tf.layers.logits import Logits
from l2p_tf.layers.noise import has_other_noise
from l2p_tf.layers.ranges import candidates, in_range, told_by_layers
from l2p_tf.layers.saved_model import SavedModelLayer
from l2p_tf.observation import only_output
from l2p_tf.types import UserError

_BATCH = 64
_SIGNATURE = "serving_default"


def mended(
    opened: Opened, options: ImportOptions, images: np.ndarray, labels: np.ndarray, classes: int
) -> tuple[keras.Model, list[Finding]]:
    """Converts the model to a classifier: float32 images in [0, 1] to float32 logits of the data's classes.

    The result consists of layers of Keras and of this package only; a model that needs other code becomes a TensorFlow
    graph.

    Args:
      opened: the model.
      options: what is known about it.
      images: sample of the data: float32 in [0, 1], (count, height, width, channels).
      labels: their classes.
      classes: number of classes of the data.

    Raises:
      UserError: it cannot be converted; the message says why.
    """
    shape, findings = images.shape[1:], list(opened.findings)
    plain = _one_output(opened.model, shape, "" if opened.has_one_output else options.output)
    if any(
        "float" not in keras.backend.standardize_dtype(x.dtype) for x in getattr(opened.model, "inputs", None) or ()
    ):
        text = "It takes whole numbers; it was built anew on floats, which its layers take as well, to have a gradient."
        findings.append(Finding(INPUT, MENDED, text))
    plain.name = options.name
    with quietly():
        plain = as_classifier(plain)
    findings += findings_of(plain)
    plain, noisy = keep_noise(plain) if is_graph(plain) else (plain, [])
    plain.name = "imported"
    outputs = _count(plain)
    order = _order(options.class_map, outputs, classes)
    answers = {
        name: _asked(_with_range(plain, shape, name), images)
        for name in candidates(shape[-1])
        if options.input_range in ("auto", name)
    }
    taken = {name: _mapped(scores, order) for name, scores in answers.items() if scores is not None}
    right = {name: scores.argmax(-1) == labels for name, scores in taken.items()}
    known_range = opened.told or told_by_layers(plain)
    decision = ranges.decide(options.input_range, right, known_range, 1.0 / classes)
    with quietly():
        classifier = as_classifier(_with_range(plain, shape, decision.name, options.name), images)
    new = findings_of(classifier)
    findings += [f for f in new if f.check != OUTPUTS or all(other.check != OUTPUTS for other in findings)]
    if noisy:
        text = f"Its layers {', '.join(noisy)} were called with training=True, and stay so. {WITH_NOISE}"
        findings = [f if f.check != NOISE else Finding(NOISE, MENDED, text) for f in findings]
    findings.append(decision.finding)
    findings.append(_classes_finding(taken.get(decision.name), labels, order, outputs))
    inner, probabilities = classifier, False
    if isinstance(classifier, AdaptedClassifier):
        inner, probabilities = classifier.model, classifier.probabilities
    if opened.has_code:
        inner = _as_graph(inner, shape)
    inner.name = "ranged"  # Layers of a model need unique names, whatever the run is called.
    x = keras.Input(shape, name="images", dtype="float32")
    logits = Logits(probabilities, order, has_other_noise(classifier), name="logits")(inner(x))
    return keras.Model(x, logits, name="classifier"), findings


def _one_output(model: keras.Model, shape: tuple[int, ...], wanted: str) -> keras.Model:
    """Returns the model from one float image tensor to the requested output."""
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        x = keras.Input(shape, name="images", dtype="float32")
        with _telling(shape):
            answer = model(x)
        return keras.Model(x, pick(answer, [], wanted))
    structure = outputs[0] if isinstance(model, keras.Sequential) else model.output
    names = [tensor._keras_history.operation.name for tensor in outputs]
    output = pick(structure, names, wanted)
    if len(inputs) == 1 and "float" not in keras.backend.standardize_dtype(inputs[0].dtype):
        return _on_floats(keras.Model(inputs[0], output), shape)
    plain = model if isinstance(model, keras.Sequential) else keras.Model(inputs, output)
    check_inputs(plain, None)
    taken = tuple(inputs[0].shape[1:])
    if any(n not in (None, m) for n, m in zip(taken, shape, strict=True)):
        raise UserError(
            f"`--model_file` should take the images of the data, {'x'.join(map(str, shape))}. It takes: "
            f"{'x'.join(map(str, taken))}"
        )
    return plain if isinstance(model, keras.Sequential) else keras.Model(inputs[0], output)


def _on_floats(model: keras.Model, shape: tuple[int, ...]) -> keras.Model:
    """Rebuilds an integer-input model on floats, if its layers accept them."""
    x = keras.Input(tuple(model.inputs[0].shape[1:]), dtype="float32")
    try:
        twin = keras.models.clone_model(model, input_tensors=x)
        twin.set_weights(model.get_weights())
        probe = np.random.default_rng(0).integers(0, 256, (4, *shape))
        same = np.allclose(model(probe.astype(np.int32)), twin(probe.astype(np.float32)), rtol=1e-3, atol=1e-3)
    except Exception:  # Some layers accept only integers.
        same = False
    if not same:
        check_inputs(model, None)
    return twin


def _count(model: keras.Model) -> int:
    shape = model.output_shape
    if not isinstance(shape, tuple) or len(shape) != 2 or not isinstance(shape[1], int):
        raise UserError(f"The model should answer (batch, classes) logits. It answers: {shape}")
    return int(shape[1])


def _order(wanted: Sequence[int], outputs: int, classes: int) -> tuple[int, ...]:
    """Validates `--class_map`."""
    if not wanted:
        if outputs != classes:
            raise UserError(
                f"The model has {outputs} outputs, the data {classes} classes: `--class_map` should give, for each "
                "class of the data in order, the number of the model's output."
            )
        return ()
    if len(wanted) != classes or len(set(wanted)) != classes or max(wanted) >= outputs:
        raise UserError(
            f"`--class_map` should give {classes} different numbers from 0 to {outputs - 1}, one for each class of the "
            f"data. Received: {','.join(map(str, wanted))}"
        )
    return tuple(wanted)


@contextlib.contextmanager
def _telling(shape: tuple[int, ...]) -> Iterator[None]:
    """Turns any exception of an external model into a one-line UserError, except those about its input."""
    try:
        yield
    except (UserError, tf.errors.InvalidArgumentError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        size = "x".join(map(str, shape))
        raise UserError(f"The model cannot answer images of {size}: {type(error).__name__}: {reason}") from error


def _with_range(model: keras.Model, shape: tuple[int, ...], name: str, called: str = "ranged") -> keras.Model:
    """Puts a layer in front of the model that converts images in [0, 1] to the range it expects."""
    x = keras.Input(shape, name="images", dtype="float32")
    with _telling(shape):
        return keras.Model(x, model(in_range(x, name)), name=called)


def _asked(model: keras.Model, images: np.ndarray) -> np.ndarray | None:
    """Returns outputs float32 (count, outputs), with -inf for non-finite ones; None if the model rejects the input."""
    spec = tf.TensorSpec((None, *images.shape[1:]))
    run = tf.function(functools.partial(model, training=False), input_signature=[spec], autograph=False)
    try:
        with _telling(images.shape[1:]):
            parts = [only_output(run(images[index]))[:real] for index, real in batches(len(images), _BATCH)]
    except tf.errors.InvalidArgumentError:
        return None  # For example a served model, which only accepts [0, 1].
    answers = tf.cast(tf.concat(parts, 0), tf.float32)
    return np.asarray(tf.where(is_answer(answers)[:, None], answers, -np.inf))


def _mapped(answers: np.ndarray, order: Sequence[int]) -> np.ndarray:
    return answers[:, list(order)] if order else answers


def _classes_finding(
    answers: np.ndarray | None, labels: np.ndarray, order: Sequence[int], outputs: int
) -> Finding:  # fmt: skip
    """Checks on labeled images whether the outputs are the data's classes in their order."""
    if order:
        return Finding(
            CLASSES, MENDED, f"Of {outputs:,} outputs --class_map takes {len(order):,} as the data's classes."
        )
    if answers is not None and (better := _better_order(answers.argmax(-1), labels, outputs)):
        own, other, better_order = better
        return Finding(
            CLASSES, BEWARE,
            f"The classes are in another order, it seems: in this one {100 * own:.1f}% are right, with --class_map="
            f"{','.join(map(str, better_order))} {100 * other:.1f}% of images that it was not found on.",
        )  # fmt: skip
    return Finding(CLASSES, FITS, f"There are {outputs:,} outputs, as many as classes, and no other order is better.")


def _better_order(predicted: np.ndarray, labels: np.ndarray, outputs: int) -> tuple[float, float, list[int]] | None:
    """If another class order is far more accurate: both accuracies, on a held-out half, and the order."""
    half = np.arange(len(labels)) % 2 == 0
    table = np.zeros((outputs, outputs), int)
    np.add.at(table, (labels[half], predicted[half]), 1)
    order = linear_sum_assignment(table, maximize=True)[1]
    own, other = float((predicted == labels)[~half].mean()), float((predicted == order[labels])[~half].mean())
    return (own, other, order.tolist()) if other > own + 0.2 else None


class _Graph(tf.Module):
    """A model as a SavedModel with one signature."""

    def __init__(self, model: keras.Model, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.tracked = [variable.value for variable in model.variables]
        spec = tf.TensorSpec((None, *shape), tf.float32, name="images")
        ask = functools.partial(model, training=False)
        self.serve = tf.function(lambda images: {"outputs": ask(images)}, input_signature=[spec], autograph=False)


def _as_graph(model: keras.Model, shape: tuple[int, ...]) -> keras.Model:
    """Converts the model to its TensorFlow graph, which needs none of its code."""
    module = _Graph(model, shape)
    with tempfile.TemporaryDirectory() as folder:
        try:
            tf.saved_model.save(module, folder, signatures={_SIGNATURE: module.serve})
        except Exception as error:  # The model may not be traceable.
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"The model cannot be kept as a TensorFlow graph: {reason}") from error
        layer = SavedModelLayer.open(pathlib.Path(folder), _SIGNATURE, "outputs", name="graph")
    x = keras.Input(shape, name="images", dtype="float32")
    return keras.Model(x, layer(x), name="graph_of_model")


def unlike(model: keras.Model, other: keras.Model, images: np.ndarray) -> Any:
    """Largest difference between the outputs of two deterministic models, relative to the largest output."""
    first, second = (np.asarray(classifier(images, training=False), np.float32) for classifier in (model, other))
    return np.abs(first - second).max() / max(float(np.abs(first).max()), 1e-9)
