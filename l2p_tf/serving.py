"""Export for serving: a SavedModel that needs nothing but TensorFlow."""

from __future__ import annotations

import errno
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from l2p_tf import artifacts, formats
from l2p_tf.artifacts import write_json
from l2p_tf.certification.signature import certifier
from l2p_tf.certification.smoothing import Smoothing
from l2p_tf.environment import user_path
from l2p_tf.inference import ROUNDING, device, finite_softmax, to_unit
from l2p_tf.layers import sampling
from l2p_tf.layers.noise import SeedScope, draws_per_example, is_randomized, is_seed_state
from l2p_tf.loops import repeat
from l2p_tf.models.saving import load_classifier
from l2p_tf.progress import bar
from l2p_tf.types import UserError

SAVED_MODEL = "saved_model"
CARD = "serving.json"
SPREAD = "spread"
SEEDED = "serve_seeded"
CERTIFY = "certify"
TOGETHER = 128
"""Most images in one pass of a server that gets few images at a time."""

_DRAWS = 16


class Served(tf.Module):
    """A classifier as signatures: probabilities averaged over draws, their spread, and the predicted class.

    An answer that is no number has probabilities 0, and no answer that is one makes the predicted class -1.

    They refuse images of another shape and numbers that are not finite or not in [0, 1], with `InvalidArgumentError`.
    No images give no answers. Requests may run at the same time: the noise of each follows from a seed of its own.

    Args:
      model: the classifier.
      draws: forward passes per request; each draws fresh noise. 1 for a model without noise.
      certificate: a certificate that fits the model, for a signature of its own; None for none.
    """

    def __init__(self, model: keras.Model, draws: int, certificate: Smoothing | None = None) -> None:
        super().__init__(name="served")
        # Behind a function, since what is saved with the module are weights, and nothing of seeds. Besides, it tracks
        # TensorFlow's variables, not Keras's.
        self._model, self.draws = (lambda: model), draws
        self._certificate = (lambda: certificate) if certificate else None
        self.tracked = [v.value for v in model.variables if not is_seed_state(v)]

    def signatures(self) -> dict[str, Any]:
        """`serving_default` takes float32 images in [0, 1], `serve_uint8` 0..255; (any, height, width, channels).

        `serve_seeded` takes float32 images and a seed, int64 (2,): the same answers to the same call, for replays.
        `certify`, with a certificate, takes float32 images and returns predictions and certified l_2 radii.
        """
        shape = (None, *self._model().input_shape[1:])

        def signature(body: Callable[..., Any], dtype: tf.DType, *more: tf.TensorSpec) -> Any:
            specs = [tf.TensorSpec(shape, dtype, name="images"), *more]
            return tf.function(body, input_signature=specs, autograph=False).get_concrete_function()

        # The network is in the file once.
        seeded = signature(self._serve, tf.float32, tf.TensorSpec([2], tf.int64, name="seed"))
        serve = signature(lambda images: seeded(images, self._fresh()), tf.float32)
        whole = signature(lambda images: serve(to_unit(images)), tf.uint8)
        made = {"serving_default": serve, "serve_uint8": whole, SEEDED: seeded}
        if self._certificate:
            certify = certifier(self._model(), self._certificate())
            made[CERTIFY] = signature(lambda images: certify(_checked(images), self._fresh()), tf.float32)
        return made

    @staticmethod
    def _fresh() -> tf.Tensor:
        # Drawn by the server at each request: a seed stored in the file would tell the noise to whoever reads it.
        # The raw operation, because any other takes up the seeds that a training in this process has set.
        return tf.raw_ops.RandomUniformInt(
            shape=[2], minval=tf.constant(0, tf.int64), maxval=tf.constant(2**62, tf.int64), seed=0, seed2=0
        )

    def _serve(self, images: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        model = self._model()
        images = _checked(images)
        count = tf.shape(images)[0]
        zeros = tf.zeros([count, int(model.output_shape[-1])])

        def draws(i: tf.Tensor, mean: tf.Tensor, squares: tf.Tensor, last: tf.Tensor) -> tuple[tf.Tensor, ...]:
            del last
            # Welford's update for a few draws at a time: no difference of large sums.
            now = tf.minimum(together, self.draws - i)
            with SeedScope(sampling.derived_seed(seed + tf.cast(i, tf.int64))):
                logits = _logits_of_copies(model, images, now)
            probabilities = finite_softmax(logits)
            n, new = tf.cast(i, tf.float32), tf.cast(now, tf.float32)
            own = tf.reduce_mean(probabilities, 0)
            step = own - mean
            squares += tf.reduce_sum(tf.square(probabilities - own), 0) + tf.square(step) * n * new / (n + new)
            return i + now, mean + step * new / (n + new), squares, logits[0]

        together = tf.constant(1)
        if draws_per_example(model):
            # Copies of an image get noise of their own, and a full batch is faster than many small ones.
            together = tf.clip_by_value(TOGETHER // tf.maximum(count, 1), 1, self.draws)
        rounds = tf.where(count > 0, -(-self.draws // together), 0)
        _, mean, squares, logits = repeat(draws, (tf.constant(0), zeros, zeros, zeros), rounds)
        spread = tf.sqrt(tf.maximum(squares, 0.0) / max(self.draws - 1, 1))
        # Of one pass the largest logit decides: a softmax may have rounded two of them to the same number.
        classes = tf.argmax(logits if self.draws == 1 else mean, -1)
        predictions = tf.where(tf.reduce_sum(mean, -1) > 0.0, classes, tf.constant(-1, tf.int64))
        return {"probabilities": mean, "predictions": predictions, SPREAD: spread}


def _checked(images: tf.Tensor) -> tf.Tensor:
    """The images, where a request is as the signature says: neither TensorFlow nor its server compares shapes."""
    # Without the shape known here, by which the graph's optimizer would take the check for always true.
    hidden = tf.raw_ops.PlaceholderWithDefault(input=images, shape=None, name="images")
    images = tf.ensure_shape(hidden, images.shape, name="images_shape")
    within = tf.reduce_all((images >= -ROUNDING) & (images <= 1.0 + ROUNDING))
    text = "`images` should be finite and in [0, 1]. Received numbers from and to:"
    check = tf.debugging.Assert(within, [text, tf.reduce_min(images), tf.reduce_max(images)])
    with tf.control_dependencies([check]):
        return tf.identity(images)


def _logits_of_copies(model: keras.Model, images: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """The logits of some draws in one pass: (count, batch, classes)."""
    copies = tf.broadcast_to(images[None], tf.concat([[count], tf.shape(images)], 0))
    logits = model(tf.reshape(copies, [-1, *images.shape[1:]]), training=False)
    return tf.reshape(logits, tf.concat([[count], tf.shape(images)[:1], logits.shape[1:]], 0))


def export(
    trained: artifacts.Artifact,
    output: str | os.PathLike[str],
    *,
    checkpoint: str = "best",
    draws: int | None = None,
    class_names: Sequence[str] = (),
    kinds: Sequence[str] = (),
    certificate: Smoothing | None = None,
    overwrite: bool = False,
) -> artifacts.Artifact:
    """Exports a trained classifier as a SavedModel.

    Args:
      trained: the artifact of a training.
      output: the folder to make; the SavedModel lies in its `saved_model`, a description in `serving.json`.
      checkpoint: `best` or `last`.
      draws: forward passes averaged per request; a model without noise takes 1 whatever is given. None takes as many
        as the defense answers with, or 16 where it answers with one.
      class_names: for the description.
      kinds: further formats, of `formats.FORMATS`, in which a model without noise is written beside the SavedModel.
      certificate: what the signature `certify` computes; where it does not fit the model, the description says why.
      overwrite: replace what was made with other options.

    Raises:
      UserError: no such model, `draws` is below 1, or TensorFlow could not load what lies in such a folder.
      OSError: the disk is full.
    """
    check_folder(output)
    if draws is not None and draws < 1:
        raise UserError(f"`draws` should be at least 1. Received: {draws}")
    if draws is None:
        usual = int(trained.manifest["notes"].get("prediction_draws", 1))
        draws = usual if usual > 1 else _DRAWS
    further = [kind for kind in formats.FILES if kind in kinds]
    if kinds:
        formats.check(kinds)
    request = {"checkpoint": checkpoint, "draws": draws, **({"formats": further} if further else {})}
    request |= {"certificate": certificate.spec} if certificate else {}
    inputs = {"train": trained}
    with artifacts.produce(output, "export", request, inputs, device=device(), overwrite=overwrite) as work:
        if work is not None:
            work.clear()  # A SavedModel is not continued.
            model = load_classifier(trained.path / f"{checkpoint}.keras")
            if further:
                formats.check(further, model)
            draws = draws if is_randomized(model) else 1
            _export(model, work.path, draws, list(class_names), trained, further, certificate)
    return artifacts.read(output, "export")


def check_folder(output: str | os.PathLike[str]) -> None:
    """UserError where TensorFlow cannot load a SavedModel from a folder, as it takes its name for a pattern."""
    path = user_path(output).absolute().as_posix()
    if "\\" in path or ("[" in path and "]" in path):
        raise UserError(
            "An export should lie in a folder without brackets and backslashes in its path, from which TensorFlow "
            f"cannot load. Received: {path!r}"
        )


def _export(
    model: keras.Model, folder: pathlib.Path, draws: int, class_names: list[str], trained: artifacts.Artifact,
    further: Sequence[str], certificate: Smoothing | None,
) -> None:  # fmt: skip
    flaw = ""
    if certificate:
        try:
            certifier(model, certificate)
        except UserError as error:
            flaw = str(error)
    served = Served(model, draws, None if flaw else certificate)
    with bar(f"export {trained.options['name']}", 2, "steps") as advance:
        signatures = served.signatures()
        advance(1)
        try:
            tf.saved_model.save(served, str(folder / SAVED_MODEL), signatures=signatures)
        except tf.errors.OpError as error:
            # TensorFlow tells of a full disk in a sentence.
            number = errno.ENOSPC if os.strerror(errno.ENOSPC) in error.message else errno.EIO
            raise OSError(number, error.message, str(folder / SAVED_MODEL)) from error
        advance(1)
    others = {kind: {"file": formats.FILES[kind], "difference": formats.write(model, folder, kind)} for kind in further}
    shape = list(model.input_shape[1:])
    floats = {"images": {"dtype": "float32", "shape": [None, *shape], "range": [0, 1]}}
    certified = certificate is not None and not flaw
    write_json(folder / CARD, {
        "signatures": {
            "serving_default": floats,
            **({CERTIFY: floats} if certified else {}),
            "serve_uint8": {"images": {"dtype": "uint8", "shape": [None, *shape], "range": [0, 255]}},
            SEEDED: {**floats, "seed": {"dtype": "int64", "shape": [2]}},
        },
        "outputs": {
            "probabilities": "float32 (batch, classes), the mean over the draws",
            "predictions": "int64 (batch,), -1 where no answer is a number",
            SPREAD: "float32 (batch, classes), the standard deviation over the draws",
        },
        **({CERTIFY: {"certificate": certificate.spec, "left_out": flaw}} if certificate else {}),
        **({"formats": others} if others else {}),
        "draws": draws,
        "class_names": class_names,
        "model": trained.options.get("model"),
        "defense": trained.options.get("defense"),
        "trained": trained.fingerprint,
    })  # fmt: skip
