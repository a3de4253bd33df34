"""Loss surface at images: whether the gradient is usable, and the margins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    model: keras.Model, images: np.ndarray, labels: np.ndarray, epsilon: float, **how: Any
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
      **how: `draws` of the noise that gradients are averaged over (1), `seed` of the noise (0), `batch_size`, images
      per pass (128), and `jit_compile` as in `inference.compiled`.

    Returns:
      `direction`: float32 as `images`, the sign of the cross-entropy's gradient, 0 where it is not finite. `zero`,
      `tiny` and `infinite`: bool (count,).
    """

    def body(model: keras.Model, x: tf.Tensor, criterion: Criterion, draws: int, most: int) -> Tensors:
        entropy, slope = (loss_gradient(model, x, criterion, draws, loss, most=most)[0] for loss in ("ce", "margin"))
        axes = list(range(1, len(x.shape)))
        finite = tf.reduce_all(tf.math.is_finite(entropy) & tf.math.is_finite(slope), axes)
        return {
            "direction": tf.where(tf.math.is_finite(entropy), tf.sign(entropy), 0.0),
            "zero": finite & tf.reduce_all(tf.equal(entropy, 0.0), axes),
            "steepness": tf.reduce_sum(tf.abs(slope), axes),
            "highest": tf.reduce_max(tf.abs(model(x, training=False)), -1),
            "infinite": ~finite,
        }

    found = _in_batches("slopes", body, model, images, labels, **how)
    promised = np.float32(epsilon) * found["steepness"]
    found["tiny"] = ~found["infinite"] & (promised <= _RESOLUTION * found["highest"])
    return {key: found[key] for key in ("direction", "zero", "tiny", "infinite")}


def margins(model: keras.Model, images: np.ndarray, labels: np.ndarray, **how: Any) -> np.ndarray:
    """Returns the largest other logit minus the label's, averaged over draws: float32 (count,).

    Unlike the cross-entropy, it distinguishes images where float32 rounds that to 0. Calls with the same seed and
    number of images use the same noise. Arguments as in `slopes`.
    """

    def body(model: keras.Model, x: tf.Tensor, criterion: Criterion, draws: int, most: int) -> Tensors:
        return {"margin": mean_loss(model, x, criterion, draws, "margin", most)[0]}

    return _in_batches("margins", body, model, images, labels, **how)["margin"]


def _in_batches(
    name: str, body: Callable[..., Tensors], model: keras.Model, images: np.ndarray, labels: np.ndarray, *,
    draws: int = 1, seed: int = 0, batch_size: int = 128, jit_compile: bool | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Runs a compiled `body` on every batch, with the noise seeded, and joins what it returns."""
    model, images = inference.prepared(model, images)
    labels = inference.checked_labels(labels, len(images), int(model.output_shape[-1]))
    draws, replicas = draws if is_randomized(model) else 1, inference.replicas(model)
    most = batch_size // replicas

    def seeded(sharded: tuple[tf.Tensor, tf.Tensor], pair: tf.Tensor) -> Tensors:
        former = inference.seed_noise(model, pair)
        outputs = body(model, sharded[0], Criterion(sharded[1]), draws, most)
        restore_seeds(model, former)
        return outputs

    run = inference.compiled(model, (name, draws, most), seeded, jit_compile)
    parts = []
    for number, (index, real) in enumerate(inference.batches(len(images), batch_size, replicas)):
        sharded = tf.constant(images[index]), tf.constant(labels[index])
        outputs = run(sharded, tf.constant(inference.seed_pair(seed, number)))
        parts.append({key: value[:real].numpy() for key, value in outputs.items()})
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
