"""HopSkipJump (Chen, Jordan and Wainwright 2020): minimizes the perturbation using predicted classes only."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import numpy as np
import tensorflow as tf

from l2p_tf.attacks.base import ATTACKS, MinimizationAttack
from l2p_tf.attacks.context import SELECTION_DRAWS, AttackContext, State, choose
from l2p_tf.attacks.criterion import TARGETS
from l2p_tf.attacks.iterative import IterativeAttack
from l2p_tf.attacks.projection import length, steepest
from l2p_tf.attacks.randomness import standard_normal, uniform
from l2p_tf.attacks.sampling import losses_of, most_together
from l2p_tf.loops import repeat
from l2p_tf.options import option
from l2p_tf.types import Norm

_HALVINGS = 30
"""Number of halvings before a step is given up; the rest is below float32 resolution."""
_NO_LIMIT = 2**30
_ROUNDS = 4


@ATTACKS.register("hop_skip_jump")
@dataclasses.dataclass(frozen=True)
class HopSkipJump(IterativeAttack, MinimizationAttack):
    """HopSkipJump: along the decision boundary, by predicted classes alone (Chen, Jordan and Wainwright 2020).

    If no noise image is a valid start (for targeted attacks, before trying noise), it starts at another of the given
    images that is predicted as wanted.
    """

    steps: int = option(50, "steps along the boundary", low=1)
    norm: Norm = option(Norm.L2, "norm to keep small", choices=("linf", "l2"))
    initial_evaluations: int = option(100, "B0: probes of the first step; step t takes sqrt(t) times as many", low=2)
    initial_samples: int = option(100, "images of uniform noise to try, at most, for one to begin at", low=0)
    queries: int | None = option(None, "forward passes per image at most; None: as many as the steps take", low=1)
    delta: float = option(0.01, "how far away probes are, as a share of the distance from the image", above=0, high=1)
    target: str = option("none", "class to arrive at; none: any class but the label", choices=TARGETS)
    epsilon: float | None = option(
        None, "count only successes of at most this norm, and stop there; None: the smallest norm", low=0
    )
    draws: int = option(1, "draws of the model's noise that each probe asks", low=1)

    TRACED_OPTIONS: ClassVar[tuple[str, ...]] = ("epsilon", "queries")
    HOST_OPTIONS: ClassVar[tuple[str, ...]] = (*IterativeAttack.HOST_OPTIONS, "steps")
    CHUNK: ClassVar[int] = 1
    STATIC_BATCH: ClassVar[bool] = True
    BEGINS_ELSEWHERE: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """Label such as `HopSkipJump-50` or `HopSkipJump-50 linf within 0.1`."""
        return self.described(f"HopSkipJump-{self.steps}", default=Norm.L2)

    @property
    def iterations(self) -> int:
        """One to find a starting point, and the steps."""
        return self.steps + 1

    def numbers(self) -> dict[str, float]:
        """Epsilon (0, which nothing is below, if there is none) and the budget of queries."""
        return {"epsilon": self.epsilon or 0.0, "queries": float(self.queries or _NO_LIMIT)}

    def cost(self, draws: int, classes: int) -> tuple[int, int]:
        """The average number of probes per step; `step` counts the actual passes itself."""
        del classes
        return 0, draws * math.ceil(self.initial_evaluations * 2 / 3 * math.sqrt(self.steps))

    def begin(self, context: AttackContext) -> State:
        """Starts at another image that is predicted as wanted; step 0 looks for such a noise image."""
        start = context.images if context.elsewhere is None else context.elsewhere
        return {
            "adversarial": context.images,
            "size": context.full(float("inf")),
            "x": start,
            "used": context.full(0, tf.int32),
        }

    def step(self, context: AttackContext, i: tf.Tensor, state: State) -> State:
        """Leaves the boundary along the estimated normal, and returns to it toward the image (Algorithm 2).

        Step 0 has no boundary point yet, and starts from noise.
        """
        x, image, used, first = state["x"], context.images, state["used"], i == 0
        halvings, draws, each = self._halvings(image), context.draws(self.draws), self._passes(context)
        # Reserve queries for the return to the boundary and for one step away from it.
        usable = tf.cast(context.numbers["queries"], tf.int32) - halvings * each
        count = tf.cast(self.initial_evaluations * tf.sqrt(tf.cast(i, tf.float32)), tf.int32)
        count = tf.maximum(tf.minimum(count, (usable - each - used) // draws), 0)
        count = tf.where(state["done"], 0, count)
        normal = self._normal(context, x, context.fold(i, 0), count)
        used += draws * count

        pace = length(x - image, self.norm) / tf.sqrt(tf.cast(tf.maximum(i, 1), tf.float32))
        # Noise seldom has the target class, and nearly always one that is not the label.
        turn = 0 if self.targeted else self.initial_samples
        shape = [context.batch, *image.shape[1:]]

        def undecided(k: tf.Tensor, point: tf.Tensor, succeeded: tf.Tensor, used: tf.Tensor) -> tf.Tensor:
            del k, point
            return ~succeeded & ~state["done"] & (used + each <= usable)

        def attempt(k: tf.Tensor, point: tf.Tensor, succeeded: tf.Tensor, used: tf.Tensor) -> tuple[tf.Tensor, ...]:
            noise = tf.where(k == turn, x, uniform(shape, context.fold(i, 1, k)))
            stepped = tf.clip_by_value(x + pace * 0.5 ** tf.cast(k, tf.float32) * normal, 0.0, 1.0)
            tried, asked = tf.where(first, noise, stepped), undecided(k, point, succeeded, used)
            reached = asked & self._fools(context, tried)
            return k + 1, choose(reached, tried, point), succeeded | reached, used + tf.where(asked, each, 0)

        begun = (tf.constant(0), tf.where(first, image, x), context.full(False, tf.bool), used)
        tries = tf.where(first, self.initial_samples + 1, _HALVINGS)
        _, point, succeeded, used = repeat(attempt, begun, tries, lambda *s: tf.reduce_any(undecided(*s)))

        succeeded |= ~first  # Otherwise it stays at its last point, which is adversarial.
        x = self._to_boundary(context, point, halvings)
        used += tf.where(succeeded, halvings * each, 0)
        size = length(x - image, self.norm)[:, 0, 0, 0]
        smaller = succeeded & (size < state["size"])
        size = tf.where(smaller, size, state["size"])
        done = ~succeeded | (size <= context.numbers["epsilon"]) | ((usable - each - used) // draws < 2)
        new = {"x": x, "adversarial": choose(smaller, x, state["adversarial"]), "size": size, "done": done}
        return {**new, "used": used, "forwards": used}

    def _normal(self, context: AttackContext, x: tf.Tensor, seed: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """Estimates the unit normal into the wrong class from `count` (batch,) probes around `x` (Equation 16)."""
        shape, size = x.shape[1:], int(np.prod(x.shape[1:]))
        # Split into passes of bounded size; surplus probes of the last one are discarded.
        rounds = max(_ROUNDS, math.ceil(self.initial_evaluations / most_together(context)))
        many = math.ceil(self.initial_evaluations / rounds)
        radius = self.delta * length(x - context.images, self.norm)[:, None]

        def probe(k: tf.Tensor, sums: tf.Tensor, totals: tf.Tensor) -> tuple[tf.Tensor, ...]:
            sample, own = [context.batch, many, *shape], tf.random.fold_in(seed, k, alg=tf.random.Algorithm.PHILOX)
            ways = standard_normal(sample, own) if self.norm is Norm.L2 else 2.0 * uniform(sample, own) - 1.0
            ways *= radius * tf.math.rsqrt(tf.reduce_sum(tf.square(ways), [2, 3, 4], keepdims=True) + 1e-12)
            probes = tf.clip_by_value(x[:, None] + ways, 0.0, 1.0)
            _, share = losses_of(
                context, lambda first, n: tf.gather(probes, first + tf.range(n), axis=1), many, "margin", self.draws
            )
            counted = tf.cast(k * many + tf.range(many) < count[:, None], tf.float32)
            weights = tf.stack([(2.0 * share - 1.0) * counted, counted], 1)
            ways = tf.reshape(probes - x[:, None], [-1, many, size])
            return k + 1, sums + tf.matmul(weights, ways), totals + tf.reduce_sum(weights, 2)

        none = tf.zeros([context.batch, 2, size]), tf.zeros([context.batch, 2])
        rounds = (tf.reduce_max(count) + many - 1) // many
        _, sums, totals = repeat(probe, (tf.constant(0), *none), rounds)
        mean = tf.math.divide_no_nan(totals[:, 0], totals[:, 1])[:, None]
        # If all probes agree there is no variance to reduce, and their mean is the estimate.
        estimate = tf.where(tf.abs(mean) < 1.0, sums[:, 0] - mean * sums[:, 1], sums[:, 0])
        return steepest(tf.reshape(estimate, [-1, *shape]), self.norm)

    def _to_boundary(self, context: AttackContext, start: tf.Tensor, halvings: int) -> tf.Tensor:
        """Returns the last adversarial point on the way from `start`, which is one, to the image (Algorithm 1)."""
        image = context.images
        radius = length(start - image, self.norm)

        def at(share: tf.Tensor) -> tf.Tensor:
            share = share[:, None, None, None]
            if self.norm is Norm.LINF:
                return tf.clip_by_value(start, image - share * radius, image + share * radius)
            return tf.clip_by_value(image + share * (start - image), 0.0, 1.0)

        def halve(low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            middle = (low + high) / 2.0
            fools = self._fools(context, at(middle))
            return tf.where(fools, low, middle), tf.where(fools, middle, high)

        _, high = repeat(halve, (context.full(0.0), context.full(1.0)), halvings)
        # Return the exact point that was evaluated.
        return choose(high < 1.0, at(high), start)

    def _halvings(self, image: tf.Tensor) -> int:
        """Number of halvings until the error is below the probe distance over the root of the image size."""
        size = int(np.prod(image.shape[1:]))
        return math.ceil(math.log2((size if self.norm is Norm.LINF else math.sqrt(size)) / self.delta))

    def _passes(self, context: AttackContext) -> int:
        return 1 if context.deterministic else max(self.draws, SELECTION_DRAWS)

    def _fools(self, context: AttackContext, x: tf.Tensor) -> tf.Tensor:
        """Whether the criterion is met at `x`, on all but one of several draws so that luck does not count."""
        passes = self._passes(context)
        _, share = context.loss(x, "margin", passes)
        return share > (0.5 if passes == 1 else 1.0 - 1.5 / passes)
