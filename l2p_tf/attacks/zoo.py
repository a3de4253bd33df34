"""Zeroth order optimization (Chen et al. 2017)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import tensorflow as tf

from l2p_tf.attacks.base import ATTACKS, MinimizationAttack
from l2p_tf.attacks.constant import close_round, open_search
from l2p_tf.attacks.context import AttackContext, State, choose
from l2p_tf.attacks.criterion import TARGETS
from l2p_tf.attacks.iterative import IterativeAttack
from l2p_tf.attacks.randomness import below
from l2p_tf.attacks.sampling import losses_of
from l2p_tf.options import option
from l2p_tf.types import Norm

_BETA_1, _BETA_2, _ADAM_EPSILON = 0.9, 0.999, 1e-8


@ATTACKS.register("zoo")
@dataclasses.dataclass(frozen=True)
class ZOO(IterativeAttack, MinimizationAttack):
    """ZOO: Carlini and Wagner's loss by coordinate-wise Adam on finite differences; no gradient (Chen et al. 2017)."""

    steps: int = option(1000, "steps for each c", low=1)
    coordinates: int = option(64, "coordinates moved a step; each costs two forward passes", low=1)
    binary_search_steps: int = option(1, "values of c to try", low=1)
    learning_rate: float = option(0.01, "of Adam", above=0)
    kappa: float = option(0.0, "confidence: by how much the wrong class's logit has to lead", low=0)
    initial_const: float = option(1.0, "c to begin with: times 10 until it succeeds, then bisected", above=0)
    difference: float = option(1e-3, "length of the finite difference, in pixels of [0, 1]", above=0)
    target: str = option("none", "class to arrive at; none: any class but the label", choices=TARGETS)
    epsilon: float | None = option(None, "count only successes of at most this norm; None counts all", low=0)
    draws: int = option(1, "draws of the model's noise each loss is averaged over", low=1)

    TRACED_OPTIONS: ClassVar[tuple[str, ...]] = ("learning_rate", "kappa", "initial_const", "difference")
    HOST_OPTIONS: ClassVar[tuple[str, ...]] = (*IterativeAttack.HOST_OPTIONS, "epsilon")
    CHUNK: ClassVar[int] = 20
    STATIC_BATCH: ClassVar[bool] = True
    norm: ClassVar[Norm] = Norm.L2

    @property
    def label(self) -> str:
        """Label such as `ZOO` or `ZOO kappa 5`."""
        return self.described("ZOO", default=Norm.L2)

    @property
    def iterations(self) -> int:
        """Steps for all values of c."""
        return self.steps * self.binary_search_steps

    def cost(self, draws: int, classes: int) -> tuple[int, int]:
        """Two passes per coordinate, and one at the image itself."""
        del classes
        return 0, (2 * self.coordinates + 1) * draws

    def begin(self, context: AttackContext) -> State:
        """Starts at the image. Adam's moments and step counts are per coordinate."""
        none = tf.zeros_like(context.images)
        return {**open_search(context), "x": context.images, "m": none, "v": none, "times": none}

    def step(self, context: AttackContext, i: tf.Tensor, state: State) -> State:
        """Moves some coordinates (Algorithms 1 and 2), and clips to [0, 1]."""
        x, numbers, c = state["x"], context.numbers, state["c"]
        shape, size, count = context.images.shape[1:], int(np.prod(context.images.shape[1:])), self.coordinates
        lead, share = (part[:, 0] for part in losses_of(context, lambda *_: x[:, None], 1, "margin", self.draws))
        reached = context.confirmed(x, (share > 0.5) & (lead >= numbers["kappa"]))
        chosen = below(size, [context.batch, count], context.fold(i))

        def moved(first: tf.Tensor, many: int) -> tf.Tensor:
            # Even variations step up, odd ones down.
            which = tf.range(many) + first
            at = tf.one_hot(tf.gather(chosen, which // 2, axis=1), size) * numbers["difference"]
            sign = tf.where(which % 2 == 0, 1.0, -1.0)[None, :, None]
            return x[:, None] + tf.reshape(at * sign, [-1, many, *shape])

        losses, _ = losses_of(context, moved, 2 * count, "margin", self.draws, numbers["kappa"])
        slope = (losses[:, ::2] - losses[:, 1::2]) / (2.0 * numbers["difference"])
        mask = tf.one_hot(chosen, size)
        # A coordinate drawn twice gets the mean of two equal slopes.
        often = tf.reduce_sum(mask, 1)
        slope = tf.math.divide_no_nan(tf.reduce_sum(mask * slope[:, :, None], 1), often)
        touched = tf.reshape(tf.minimum(often, 1.0), tf.shape(x))
        gradient = 2.0 * (x - context.images) - c[:, None, None, None] * tf.reshape(slope, tf.shape(x))
        times = state["times"] + touched
        m = tf.where(touched > 0.0, _BETA_1 * state["m"] + (1.0 - _BETA_1) * gradient, state["m"])
        v = tf.where(touched > 0.0, _BETA_2 * state["v"] + (1.0 - _BETA_2) * tf.square(gradient), state["v"])
        time = tf.maximum(times, 1.0)
        step = m / (1.0 - _BETA_1**time) / (tf.sqrt(v / (1.0 - _BETA_2**time)) + _ADAM_EPSILON)
        ended = state["inner"] + 1 >= self.steps
        searched = close_round(context, state, x, reached, ended, self.binary_search_steps)
        none = tf.zeros_like(m)
        at = tf.clip_by_value(x - numbers["learning_rate"] * touched * step, 0.0, 1.0)
        new = {"x": choose(ended, context.images, at), "m": choose(ended, none, m), "v": choose(ended, none, v)}
        return {**searched, **new, "times": choose(ended, none, times)}
