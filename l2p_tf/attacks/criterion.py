"""Success criterion of an attack, and the losses that measure how close it is."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from l2p_tf.classifier import is_answer

LOSSES = ("ce", "margin", "dlr")
"""Names of the losses: cross-entropy, the margin of Carlini and Wagner, the difference of logits ratio."""

TARGETS = ("none", "random", "runner_up", "least_likely", "next")
"""Ways to choose the target class of a targeted attack; `none` is an untargeted attack."""

_TINY = 1e-12
_NO_NUMBER = 1e6
"""Loss assigned to outputs that are not finite."""


@dataclasses.dataclass(frozen=True)
class Criterion:
    """Classes to leave, and optionally classes to reach.

    Attributes:
      labels: int32 (batch,), the classes to leave.
      targets: int32 (batch,), the classes the loss pulls toward; None for no particular class.
      targeted: whether only the target counts as success, in place of any class but the label.
      reference: float32 (batch, classes), logits to move away from; None if no loss needs them.
    """

    labels: tf.Tensor
    targets: tf.Tensor | None = None
    targeted: bool = False
    reference: tf.Tensor | None = None

    def tile(self, times: int) -> Criterion:
        """Returns the criteria of `times` copies of the batch, one after the other."""
        if times == 1:
            return self
        targets = None if self.targets is None else tf.tile(self.targets, [times])
        reference = None if self.reference is None else tf.tile(self.reference, [times, 1])
        return Criterion(tf.tile(self.labels, [times]), targets, self.targeted, reference)

    def reached(self, logits: tf.Tensor) -> tf.Tensor:
        """Whether logits (batch, classes) are a success: bool (batch,). Non-finite logits are never correct."""
        classes, finite = tf.argmax(logits, -1, tf.int32), is_answer(logits)
        return (classes == self.targets) & finite if self.targeted else (classes != self.labels) | ~finite

    def loss(self, kind: str, logits: tf.Tensor) -> tf.Tensor:
        """Returns the loss an attack ascends, per example: float32 (batch,).

        `ce`: cross-entropy of the label, or minus that of the target. `margin`: the largest other logit minus the
        label's (Carlini and Wagner 2017); with a target, its logit minus the largest other. `dlr`: the margin divided
        by the difference between the largest and the third largest logit (Croce and Hein 2020, Equations 6 and 7),
        which is invariant to the scale of the logits. `difference`: the target's logit minus the label's. `divergence`:
        the Kullback-Leibler divergence from the reference. Where logits are not finite, the loss is a constant: high,
        or low for targeted attacks.
        """
        finite = is_answer(logits)
        # Unselected entries must be finite too: a gradient of 0 times infinity is NaN.
        loss = self._loss(kind, tf.where(finite[:, None], logits, tf.zeros_like(logits)))
        return tf.where(finite, loss, -_NO_NUMBER if self.targeted else _NO_NUMBER)

    def _loss(self, kind: str, logits: tf.Tensor) -> tf.Tensor:
        if kind == "ce":
            if self.targets is None:
                return tf.nn.sparse_softmax_cross_entropy_with_logits(self.labels, logits)
            return -tf.nn.sparse_softmax_cross_entropy_with_logits(self.targets, logits)
        if kind == "divergence":
            assert self.reference is not None
            return divergence(self.reference, logits)
        if kind == "difference":
            return logit(logits, self.labels if self.targets is None else self.targets) - logit(logits, self.labels)
        if kind == "margin":
            if self.targets is None:
                return largest_other(logits, self.labels) - logit(logits, self.labels)
            return logit(logits, self.targets) - largest_other(logits, self.targets)
        if self.targets is None:
            top = tf.math.top_k(logits, 3).values
            margin = largest_other(logits, self.labels) - logit(logits, self.labels)
            return margin / (top[:, 0] - top[:, 2] + _TINY)
        top = tf.math.top_k(logits, 4).values
        margin = logit(logits, self.targets) - logit(logits, self.labels)
        return margin / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + _TINY)


def divergence(reference: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Kullback-Leibler divergence KL(softmax(reference) || softmax(logits)), in nats, per example: (batch,)."""
    log_p, log_q = tf.nn.log_softmax(reference), tf.nn.log_softmax(logits)
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), -1)


def logit(logits: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Returns the logit of one class per example: (batch,)."""
    # A product with a mask instead of a gather, because its gradient is cheap on every device.
    return tf.reduce_sum(logits * tf.one_hot(classes, logits.shape[-1]), -1)


def largest_other(logits: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Returns the largest logit except that of one class per example: (batch,)."""
    return tf.reduce_max(logits - 1e30 * tf.one_hot(classes, logits.shape[-1]), -1)


def pick_targets(kind: str, others: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Picks the target classes of a targeted attack.

    Args:
      kind: one of `TARGETS` except `none`.
      others: the classes except the label, the likeliest first: integers (count, classes - 1).
      labels: (count,).
      seed: seed of `random`.

    Returns:
      int32 (count,).
    """
    if kind == "next":
        return ((labels + 1) % (others.shape[1] + 1)).astype(np.int32)
    if kind == "random":
        column = np.random.default_rng(seed % 2**32).integers(0, others.shape[1], len(labels))
    else:
        column = np.full(len(labels), 0 if kind == "runner_up" else others.shape[1] - 1)
    return others[np.arange(len(labels)), column].astype(np.int32)
