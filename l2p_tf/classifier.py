"""Validates models and adapts them to classifiers that can be attacked, served or trained.

A classifier maps float32 images in [0, 1], (batch, height, width, channels), to float32 logits (batch, classes).
`as_classifier` examines a Keras model, adapts it where possible and rejects it otherwise.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from l2p_tf.contract import BEWARE, FITS, GRADIENT, MENDED, NOISE, OUTPUTS, Finding
from l2p_tf.layers.folding import predict_folded
from l2p_tf.layers.logits import TINY, Logits
from l2p_tf.layers.noise import is_randomized, mark_randomized
from l2p_tf.observation import gradient_fault, observe, only_output
from l2p_tf.types import UserError

_KEPT = "_l2p_kept"
WITH_NOISE = "It answers the same image differently, so it is judged as a randomized model, with one draw a pass."


@dataclasses.dataclass(frozen=True)
class _Kept:
    """Findings about a model; not a Keras object, in which Keras would look for weights to save."""

    classifier: keras.Model
    shapes: tuple[tuple[int, ...], ...] = ()
    """Shapes of the images it was tested on."""
    findings: tuple[Finding, ...] = ()


@keras.saving.register_keras_serializable(package="l2p_tf")
class WithoutActivation(keras.layers.Layer):
    """Wraps a layer without its activation; the weights are shared."""

    def __init__(self, layer: keras.layers.Layer) -> None:
        super().__init__(name=f"{layer.name}_logits", dtype=layer.dtype_policy)
        self.layer = layer
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """Returns the wrapped layer."""
        return {"layer": keras.saving.serialize_keras_object(self.layer)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WithoutActivation:
        """Creates the layer from `get_config`."""
        return cls(keras.saving.deserialize_keras_object(config["layer"]))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the wrapped layer's output before its activation."""
        activation, self.layer.activation = self.layer.activation, keras.activations.linear
        try:
            return self.layer(inputs)
        finally:
            self.layer.activation = activation


class AdaptedClassifier(keras.Model):
    """Adapts a model of another kind to a classifier that shares its weights.

    Args:
      model: the model.
      image_shape: (height, width, channels), None for any size.
      classes: number of classes.
      probabilities: the model outputs probabilities, whose logarithms are taken as logits.
    """

    def __init__(
        self, model: keras.Model, image_shape: tuple[int | None, ...], classes: int, probabilities: bool
    ) -> None:
        super().__init__(name=f"{model.name}_classifier", dtype="float32")
        self.model, self.image_shape, self.classes, self.probabilities = model, image_shape, classes, probabilities
        self.built = True

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns logits (batch, classes), float32."""
        answer = self.model(images, training=True) if training else predict_folded(self.model, images)
        answer = tf.cast(only_output(answer), tf.float32)
        answer = tf.ensure_shape(answer, (None, self.classes))
        return tf.math.log(tf.maximum(answer, TINY)) if self.probabilities else answer

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """(None, height, width, channels)."""
        return (None, *self.image_shape)

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """(None, classes)."""
        return (None, self.classes)


def as_classifier(model: Any, images: np.ndarray | None = None) -> keras.Model:
    """Returns the model as a classifier: the model itself, or an adapted one that shares its weights.

    Findings are cached with the model, so repeated calls are cheap. Adaptations cause a warning: a final softmax is
    removed or, if that is impossible, the logarithm of the probabilities serves as logits. A gradient that misleads
    attacks also causes a warning. A model whose predictions vary for the same images is randomized, with one draw per
    pass. `findings_of` returns the findings.

    Args:
      model: a Keras model: functional, Sequential, or subclassed and built.
      images: float32 in [0, 1], (count, height, width, channels), some of which are passed to the model; None examines
      only its layers.

    Raises:
      UserError: it cannot be used; the message says why.
    """
    if not isinstance(model, keras.Model):
        raise UserError(f"`model` should be a keras.Model. Received: {type(model).__name__}")
    check_inputs(model, images)
    kept: _Kept | None = vars(model).get(_KEPT)
    if kept is None:
        classifier, findings = _plain(model)
        kept = vars(classifier)[_KEPT] = _Kept(classifier, findings=findings)
        _tell(findings)
    if images is not None and images.shape[1:] not in kept.shapes:
        classifier, findings = _observed(kept.classifier, images)
        _tell(findings)
        kept = _Kept(classifier, (*kept.shapes, images.shape[1:]), (*kept.findings, *findings))
    # Set in the instance's dictionary, because Keras would track attributes.
    vars(model)[_KEPT] = vars(kept.classifier)[_KEPT] = kept
    return kept.classifier


def findings_of(model: keras.Model) -> tuple[Finding, ...]:
    """Returns the findings of `as_classifier` about a model, or about one it returned; empty if it was not called.

    They cover whether the outputs are logits, whether the model is randomized, and whether its gradient misleads
    attacks.
    """
    kept: _Kept | None = vars(model).get(_KEPT)
    return kept.findings if kept else ()


def is_answer(logits: tf.Tensor) -> tf.Tensor:
    """Whether logits (..., classes) determine a class: bool (...,). Minus infinity excludes a class."""
    return tf.math.is_finite(tf.reduce_max(logits, -1)) & ~tf.reduce_any(tf.math.is_nan(logits), -1)


def _tell(findings: tuple[Finding, ...]) -> None:
    for finding in findings:
        if finding.verdict != FITS:
            warnings.warn(finding.text, UserWarning, stacklevel=4)


def computes_in_float16(model: keras.Model) -> bool:
    """Whether a layer uses float16, in which gradients below 6e-8 are 0 and those above 65,504 infinite."""
    return any(layer.compute_dtype == "float16" for layer in model._flatten_layers())


def check_inputs(model: keras.Model, images: np.ndarray | None) -> None:
    """Raises UserError if the model's inputs show that it does not take these images."""
    if isinstance(model, AdaptedClassifier):
        return
    if not model.built:
        raise UserError(
            f"The model {model.name!r} has no weights yet: call it on a batch of images, or load its weights, first."
        )
    inputs = getattr(model, "inputs", None)
    if inputs is None:
        return  # A subclassed model does not declare its inputs.
    if len(inputs) != 1:
        names = ", ".join(tensor.name for tensor in inputs)
        raise UserError(
            f"The model {model.name!r} should take images alone; bind its other inputs in a model of one input. "
            f"Received: {len(inputs)} inputs ({names})"
        )
    shape, dtype = tuple(inputs[0].shape), keras.backend.standardize_dtype(inputs[0].dtype)
    if len(shape) != 4:
        raise UserError(
            f"The model {model.name!r} should take images (height, width, channels); put a Reshape or Flatten layer "
            f"before it. It takes: {shape[1:]}"
        )
    if "float" not in dtype:
        raise UserError(
            f"The model {model.name!r} should take float images in [0, 1]: whole numbers have no gradient. Build it on "
            f"keras.Input(..., dtype='float32'). It takes: {dtype}"
        )
    if images is not None and any(w not in (None, n) for w, n in zip(shape[1:], images.shape[1:], strict=True)):
        wanted = ", ".join(map(str, shape[1:]))
        raise UserError(f"`images` should be of shape (count, {wanted}). Received: {images.shape}")


def _plain(model: keras.Model) -> tuple[keras.Model, tuple[Finding, ...]]:
    """Simplifies a model by its layers: one image tensor to float32 logits; returns it with the findings.

    Containers of one input or output, other precisions and a final softmax are removed; the sigmoid of a single output
    becomes two classes.
    """
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs or len(outputs) != 1:
        return model, ()
    logits = _before_softmax(model, outputs[0])
    findings: tuple[Finding, ...] = ()
    if logits is not None:
        text = "softmax, which was taken off: attacks need its logits."
        if outputs[0].shape[-1] == 1:
            text = "sigmoid of one output: in its place 0 and what comes before it are the logits of two classes."
        findings = (Finding(OUTPUTS, MENDED, f"The model {model.name!r} ends in a {text}"),)
    elif outputs[0].dtype == "float32" and not _has_containers(model):
        return model, ()
    with model.distribute_strategy.scope():
        logits = outputs[0] if logits is None else logits
        if logits.dtype != "float32":
            logits = keras.layers.Activation("linear", dtype="float32", name="float32_logits")(logits)
        return keras.Model(inputs[0], logits, name=f"{model.name}_logits"), findings


def _has_containers(model: keras.Model) -> bool:
    """Whether a functional model's only input or output is in a list or a dictionary."""
    # A Sequential has no containers, and its structure is unknown before it is called.
    return not isinstance(model, keras.Sequential) and any(map(keras.tree.is_nested, (model.input, model.output)))


def _before_softmax(model: keras.Model, output: Any) -> Any:
    """Returns the symbolic logits before a model's softmax; None if there is none.

    For the sigmoid of a single output they are those of two classes.
    """
    operation, number, _ = output._keras_history
    node = operation._inbound_nodes[number]
    if len(node.input_tensors) != 1 or isinstance(operation, keras.layers.InputLayer):
        return None
    before = node.input_tensors[0]
    activation = getattr(operation, "activation", None)
    if activation is keras.activations.sigmoid and output.shape[-1] == 1:
        logit = before if isinstance(operation, keras.layers.Activation) else WithoutActivation(operation)(before)
        return keras.ops.concatenate([keras.ops.zeros_like(logit), logit], axis=-1)
    if activation is keras.activations.sigmoid:
        raise UserError(
            f"The model {model.name!r} should end in logits of one class among several. It ends in a sigmoid, whose "
            "outputs are probabilities of their own each: build it without."
        )
    if type(operation).__name__ == "Softmax" and operation.axis in (-1, 1):
        return before
    if isinstance(operation, keras.layers.Activation):
        if activation is keras.activations.softmax:
            return before
        # A cast of the probabilities, as in mixed-precision networks.
        return _before_softmax(model, before) if activation is keras.activations.linear else None
    if activation is keras.activations.softmax:
        return WithoutActivation(operation)(before)
    if isinstance(operation, keras.Model) and len(getattr(operation, "outputs", None) or ()) == 1 == len(
        operation.inputs
    ):
        inner = _before_softmax(operation, operation.outputs[0])
        return None if inner is None else keras.Model(operation.inputs[0], inner)(before)
    return None


def _observed(model: keras.Model, images: np.ndarray) -> tuple[keras.Model, tuple[Finding, ...]]:
    """Adapts the model to its observed outputs; returns it with the findings."""
    seen = observe(model, images)
    classifier, findings = model, []
    if not isinstance(model, AdaptedClassifier):
        finite = seen.answers[np.isfinite(seen.answers).all(-1)]
        linear = _ends_in_linear_layer(model)
        probabilities = not linear and _are_probabilities(finite, seen.dtype)
        findings += _outputs_findings(model, finite, linear, probabilities)
        if probabilities or not (seen.is_tensor and seen.dtype == tf.float32 and getattr(model, "inputs", None)):
            classifier = _adapted(model, seen.answers.shape[1], probabilities)
    if seen.randomized:
        mark_randomized(classifier)
    findings.append(_noise_finding(classifier, seen.noise_overruled))
    fault = gradient_fault(classifier, images)
    advice = "Attacks by gradients find little; square, spsa, few_pixel and hop_skip_jump need none."
    findings.append(
        Finding(GRADIENT, BEWARE, f"The gradient of the model {model.name!r} {fault}. {advice}")
        if fault
        else Finding(GRADIENT, FITS, "The gradient of the logits reaches the pixels.")
    )
    return classifier, tuple(findings)


def _noise_finding(model: keras.Model, overruled: bool) -> Finding:
    if overruled:
        text = (
            f"The model {model.name!r} draws random numbers when it is called as it is, but not with training=False, "
            "as `predict` calls it and as it is judged here. To keep the noise, make a layer whose `call` gives the "
            "noisy layer training=True."
        )
        return Finding(NOISE, BEWARE, text)
    if is_randomized(model):
        return Finding(NOISE, FITS, WITH_NOISE)
    return Finding(NOISE, FITS, "It answers the same image the same.")


def _outputs_findings(model: keras.Model, answers: np.ndarray, linear: bool, probabilities: bool) -> list[Finding]:
    """Examines outputs (batch, classes), as far as finite; empty if the layers already determine what they are."""
    if probabilities:
        text = "answers probabilities; their logarithm serves as logits. Where they are rounded to 0 or 1 gradients "
        return [Finding(OUTPUTS, MENDED, f"The model {model.name!r} {text}vanish: build it without a softmax.")]
    if any(finding.check == OUTPUTS for finding in findings_of(model)):
        return []
    if not linear and len(answers) and answers.min() >= 0 and answers.max() <= 1 and np.ptp(answers):
        text = (
            f"The model {model.name!r} answers numbers in [0, 1] that do not sum to 1, which are taken for logits. If "
            "they come from a sigmoid, gradients vanish where it saturates: build it without."
        )
        return [Finding(OUTPUTS, BEWARE, text)]
    return [Finding(OUTPUTS, FITS, "The model answers logits.")]


def _adapted(model: keras.Model, classes: int, probabilities: bool) -> AdaptedClassifier:
    inputs = getattr(model, "inputs", None)
    with model.distribute_strategy.scope():
        # A subclassed model does not declare its input size: allow any.
        shape = tuple(inputs[0].shape[1:]) if inputs else (None, None, None)
        return AdaptedClassifier(model, shape, classes, probabilities)


def _are_probabilities(answers: np.ndarray, dtype: tf.DType) -> bool:
    """Whether rows (batch, classes) are in [0, 1] and sum to 1, within their precision."""
    slack = 1e-2 if dtype in (tf.float16, tf.bfloat16) else 1e-3
    inside = len(answers) > 0 and answers.min() >= 0 and answers.max() <= 1 + slack
    return bool(inside and np.all(np.abs(answers.sum(-1) - 1) <= slack))


def _ends_in_linear_layer(model: keras.Model) -> bool:
    """Whether the last layer has weights and no activation, so that its outputs are logits whatever their sum."""
    outputs = getattr(model, "outputs", None) or ()
    return len(outputs) == 1 and _is_from_linear_layer(outputs[0])


def _is_from_linear_layer(output: Any) -> bool:
    layer, number, _ = output._keras_history
    if isinstance(layer, keras.Model):
        return _ends_in_linear_layer(layer)
    linear = getattr(layer, "activation", None) is keras.activations.linear
    if isinstance(layer, keras.layers.Activation):  # One that is linear casts what comes before, or only names it.
        return linear and _is_from_linear_layer(layer._inbound_nodes[number].input_tensors[0])
    return linear or isinstance(layer, WithoutActivation | Logits)
