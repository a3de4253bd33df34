"""Randomized smoothing as a function of a SavedModel: class and certified radius of each image."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import keras
import tensorflow as tf

from l2p_tf import artifacts
from l2p_tf.certification.base import ABSTAINED, CERTIFICATES, ESTIMATION, SELECTION
from l2p_tf.certification.records import read_certificates
from l2p_tf.certification.smoothing import Smoothing
from l2p_tf.classifier import is_answer
from l2p_tf.layers import sampling
from l2p_tf.layers.noise import SeedScope, is_randomized
from l2p_tf.loops import repeat
from l2p_tf.types import UserError

_ROWS = 256
"""Most rows of a pass; each is one draw of one image."""


def computed_smoothing(folder: pathlib.Path) -> Smoothing | None:
    """Returns the first certificate of randomized smoothing in a `certify` artifact; None without one."""
    if not (folder / artifacts.MANIFEST).is_file():
        return None
    certificates = [CERTIFICATES.parse(record.certificate) for record in read_certificates(folder)]
    return next((certificate for certificate in certificates if isinstance(certificate, Smoothing)), None)


def certifier(model: keras.Model, certificate: Smoothing) -> Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    """Returns the paper's CERTIFY (Cohen et al. 2019) as TensorFlow operations.

    Args:
      model: classifier without noise, or whose only noise is that of the certificate, which its layer then draws.
      certificate: its options.

    Returns:
      A function of images, float32 (count, height, width, channels) in [0, 1], and a seed, int64 (2,), that returns
      `predictions`, int64 (count,), -1 where the certificate abstains, and `radius`, float32 (count,), in l_2.

    Raises:
      UserError: the certificate does not fit the model, or needs noise of the model switched off, which a file cannot.
    """
    certificate.check(model)
    sigma, own = certificate.noise(model), is_randomized(model)
    if own and not _is_noise_of(model, certificate):
        raise UserError(
            f"{certificate.spec} switches the model's own noise off, which an export cannot. Export a model without "
            "noise, or one trained with --defense=smoothing and the same sigma."
        )
    radii, classes = certificate.radii(model), int(model.output_shape[-1])

    def votes(images: tf.Tensor, draws: int, seed: tf.Tensor) -> tf.Tensor:
        count = tf.shape(images)[0]
        together = tf.clip_by_value(_ROWS // tf.maximum(count, 1), 1, draws)

        def add_draws(i: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, ...]:
            now = tf.minimum(together, draws - i)
            rows = tf.reshape(tf.repeat(images[None], now, 0), [-1, *images.shape[1:]])
            derived = sampling.derived_seed(seed + tf.cast(i, tf.int64))
            if not own:
                rows += sigma * sampling.standard_normal(tf.shape(rows), derived)
            with SeedScope(derived):
                logits = tf.reshape(model(rows, training=False), [now, count, classes])
            answers = tf.where(is_answer(logits), tf.argmax(logits, -1), -1)
            return i + now, total + tf.reduce_sum(tf.one_hot(answers, classes, dtype=tf.int32), 0)

        rounds = tf.where(count > 0, -(-draws // together), 0)
        return repeat(add_draws, (tf.constant(0), tf.zeros([count, classes], tf.int32)), rounds)[1]

    def certify(images: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        streams = [sampling.derived_seed(seed + purpose) for purpose in (SELECTION, ESTIMATION)]
        selected = votes(images, certificate.selection_draws, streams[0])
        top = tf.argmax(selected, -1)
        estimated = votes(images, certificate.draws, streams[1])
        radius = tf.gather(radii, tf.gather(estimated, top, batch_dims=1))
        return {"predictions": tf.where(radius > 0.0, top, tf.constant(ABSTAINED, tf.int64)), "radius": radius}

    return certify


def _is_noise_of(model: keras.Model, certificate: Smoothing) -> bool:
    """Whether the model's only noise is the certificate's."""
    try:
        return certificate.replace(sigma=None).noise(model) == certificate.noise(model)
    except UserError:
        return False
