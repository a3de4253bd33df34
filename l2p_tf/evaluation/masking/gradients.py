"""Loss surface at images: whether the gradient is usable, and the margins."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from l2p_tf import inference
from l2p_tf.attacks.criterion import Criterion
from l2p_tf.attacks.gradient import loss_gradient, mean_loss
from l2p_tf.layers.noise import is_randomized, restore_seeds

_RESOLUTION = 2.0**-23
"""Distance from 1 to the next float32."""

Tensors = dict[str, tf.Tensor]


def slopes(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, epsilon: float, *, draws: int = 1, seed: int = 0,
    batch_size: int = 128, jit_compile: bool | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Returns the gradients that attacks follow, and where they are unusable.

    A gradient can be lost in three ways. `zero`: the gradient of the cross-entropy, which attacks ascend, is exactly 0
    in every pixel, for example because a saturated softmax underflows in float32, or because the input is rounded.
    `tiny`: the best step within the whole ball promises a change of the margin (the largest other logit minus the
    label's) below the last bit of the logits. `infinite`: either gradient is not finite. A confident network with tiny
    probabilities shows none of these: attacks use signs and directions, whatever the length.

    Args:
      model: the classifier.
      images: floats in [0, 1], (count, height, width, channels).
      labels: integers (count,).
      epsilon: l_inf radius of the ball, in pixels.
      draws: draws of the noise that gradients are averaged over.
      seed: seed of the noise.
      batch_size: images per pass.
      jit_compile: as in `inference.compiled`.

    Returns:
      `direction`: float32 as `images`, the sign of the cross-entropy's gradient, 0 where it is not finite. `zero`,
      `tiny` and `infinite`: bool (count,).
    """
    model, images = inference.prepared(model, images)
    draws = draws if is_randomized(model) else 1
    most = batch_size // inference.replicas(model)

    def body(sharded: Tensors, shared: Tensors) -> Tensors:
        x, criterion = sharded["images"], Criterion(sharded["labels"])
        former = inference.seed_noise(model, shared["seed"])
        entropy, slope = (loss_gradient(model, x, criterion, draws, loss, most=most)[0] for loss in ("ce", "margin"))
        highest = tf.reduce_max(tf.abs(model(x, training=False)), -1)
        restore_seeds(model, former)
        axes = list(range(1, len(x.shape)))
        finite = tf.reduce_all(tf.math.is_finite(entropy) & tf.math.is_finite(slope), axes)
        promised = shared["epsilon"] * tf.reduce_sum(tf.abs(slope), axes)
        return {
            "direction": tf.where(tf.math.is_finite(entropy), tf.sign(entropy), 0.0),
            "zero": finite & tf.reduce_all(tf.equal(entropy, 0.0), axes),
            "tiny": finite & (promised <= _RESOLUTION * highest),
            "infinite": ~finite,
        }

    shared = {"epsilon": tf.constant(epsilon, tf.float32)}
    run = inference.compiled(model, ("slopes", draws, most), body, jit_compile)
    return _in_batches(run, model, {"images": images, "labels": labels}, shared, seed, batch_size)


def margins(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, *, draws: int = 1, seed: int = 0,
    batch_size: int = 128, jit_compile: bool | None = None,
) -> np.ndarray:  # fmt: skip
    """Returns the largest other logit minus the label's, averaged over draws: float32 (count,).

    Unlike the cross-entropy, it distinguishes images where float32 rounds that to 0. Calls with the same seed and
    number of images use the same noise. Arguments as in `slopes`.
    """
    model, images = inference.prepared(model, images)
    draws = draws if is_randomized(model) else 1
    most = batch_size // inference.replicas(model)

    def body(sharded: Tensors, shared: Tensors) -> Tensors:
        former = inference.seed_noise(model, shared["seed"])
        margin = mean_loss(model, sharded["images"], Criterion(sharded["labels"]), draws, "margin", most)[0]
        restore_seeds(model, former)
        return {"margin": margin}

    run = inference.compiled(model, ("margins", draws, most), body, jit_compile)
    return _in_batches(run, model, {"images": images, "labels": labels}, {}, seed, batch_size)["margin"]


def _in_batches(
    run: Callable[[Tensors, Tensors], Tensors], model: keras.Model, arrays: Mapping[str, np.ndarray], shared: Tensors,
    seed: int, batch_size: int,
) -> dict[str, np.ndarray]:  # fmt: skip
    images = arrays["images"]
    labels = inference.checked_labels(arrays["labels"], len(images), int(model.output_shape[-1]))
    checked = {"images": images, "labels": labels}
    parts = []
    for number, (index, real) in enumerate(inference.batches(len(images), batch_size, inference.replicas(model))):
        sharded = {name: tf.constant(array[index]) for name, array in checked.items()}
        outputs = run(sharded, {**shared, "seed": tf.constant(inference.seed_pair(seed, number))})
        parts.append({name: value[:real].numpy() for name, value in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
