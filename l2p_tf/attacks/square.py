"""The Square attack (Andriushchenko et al. 2020)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from l2p_tf.attacks.base import ATTACKS
from l2p_tf.attacks.context import AttackContext, State, choose
from l2p_tf.attacks.criterion import LOSSES, TARGETS
from l2p_tf.attacks.iterative import IterativeAttack
from l2p_tf.attacks.projection import l2_norm, length, project
from l2p_tf.attacks.randomness import below, signs
from l2p_tf.options import option
from l2p_tf.types import Norm

_TINY = 1e-12


@ATTACKS.register("square")
@dataclasses.dataclass(frozen=True)
class Square(IterativeAttack):
    """Square: random squares, kept where they raise the loss; needs no gradient (Andriushchenko et al. 2020).

    In l1 as in Croce and Hein 2021 (Section 6): like l2, with narrower bumps.
    """

    epsilon: float = option(8 / 255, "radius of the ball, in pixels of [0, 1]", low=0)
    norm: Norm = option(Norm.LINF, "norm of the ball: linf, l2 or l1")
    queries: int = option(5000, "forward passes per image", low=1)
    p: float = option(0.8, "share of the image's pixels that the first squares cover", above=0, high=1)
    restarts: int = option(1, "random starts to choose the best of", low=1)
    loss: str = option("margin", "loss to ascend", choices=LOSSES)
    target: str = option("none", "class to arrive at; none: any class but the label", choices=TARGETS)
    draws: int = option(1, "draws of the model's noise each loss is averaged over", low=1)

    TRACED_OPTIONS: ClassVar[tuple[str, ...]] = ("epsilon",)
    CHUNK: ClassVar[int] = 50

    @property
    def label(self) -> str:
        """Label such as `Square-5000` or `Square-1000 l2`."""
        return self.described(f"Square-{self.queries}")

    @property
    def iterations(self) -> int:
        """One forward pass each."""
        return self.queries

    def facts(self) -> dict[str, Any]:
        """Steps are queries."""
        return {**super().facts(), "steps": self.queries}

    def cost(self, draws: int, classes: int) -> tuple[int, int]:
        """One forward pass."""
        del classes
        return 0, draws

    def begin(self, context: AttackContext) -> State:
        """Starts with stripes (l_inf) or a grid of bumps (l2, l1), to be evaluated in round 0."""
        image, epsilon = context.images, context.numbers["epsilon"]
        height, width, channels = image.shape[1:]
        if self.norm is Norm.LINF:
            delta = epsilon * signs([context.batch, 1, width, channels], context.fold(0)) * tf.ones_like(image)
        else:
            side = max(1, height // 5)
            grid = np.zeros((height, width), np.float32)
            for top in range(0, height - side + 1, side):
                for left in range(0, width - side + 1, side):
                    grid[top : top + side, left : left + side] = bump(side, self.norm)
            rows, columns = np.arange(height) // side, np.arange(width) // side
            cells = int(rows[-1] + 1), int(columns[-1] + 1)
            sign = signs([context.batch, *cells, channels], context.fold(0))
            spread = tf.gather(tf.gather(sign, rows, axis=1), columns, axis=2)
            delta = spread * grid[None, :, :, None]
            if self.norm is Norm.L2:
                delta = epsilon * delta / (l2_norm(delta) + _TINY)
        start = project(image + delta, image, epsilon, self.norm)
        return {"adversarial": start, "best": context.full(float("-inf"))}

    def step(self, context: AttackContext, i: tf.Tensor, state: State) -> State:
        """Proposes a square (Algorithms 2 and 3), and keeps it if the loss is higher."""
        former, image, epsilon = state["adversarial"], context.images, context.numbers["epsilon"]
        height, width, channels = image.shape[1:]
        sides = self._sides(height, width)
        sizes, which = np.unique(sides, return_inverse=True)
        level = tf.gather(tf.constant(which, tf.int32), i)
        side = tf.gather(tf.constant(sizes, tf.int32), level)
        if self.norm is Norm.LINF:
            window = self._window(context, side, (i, 0))
            sign = signs([context.batch, 1, 1, channels], context.fold(i, 1))
            moved = former + 2.0 * epsilon * sign * tf.cast(window, tf.float32)
        else:
            moved = image + self._exchanged(context, former - image, level, side, sizes, i)
        x = tf.where(i == 0, former, project(moved, image, epsilon, self.norm))
        loss, reached = context.loss(x, self.loss, self.draws)
        better = loss > state["best"]
        done = reached > 0.0 if context.deterministic else context.full(False, tf.bool)
        best = tf.where(better, loss, state["best"])
        return {"adversarial": choose(better | done, x, former), "best": best, "done": done}

    def _sides(self, height: int, width: int) -> np.ndarray:
        """Side of the square in each round; its area halves as the search proceeds (Section 5.1)."""
        rounds = np.arange(self.queries) * 10000 // self.queries
        halvings = np.searchsorted([10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000], rounds)
        side = np.rint(np.sqrt(self.p / 2.0**halvings * height * width)).astype(int)
        if self.norm is not Norm.LINF:
            side = np.maximum(side, 3) // 2 * 2 + 1
        return np.clip(side, 1, min(height, width) - (min(height, width) > 1))

    def _window(self, context: AttackContext, side: tf.Tensor, seeds: tuple[Any, ...]) -> tf.Tensor:
        """Returns a square at a random position of every image: bool (batch, height, width, 1)."""
        height, width = context.images.shape[1:3]
        top, left = self._corner(context, side, seeds)
        rows, columns = tf.range(height)[None, :, None, None], tf.range(width)[None, None, :, None]
        return (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)

    def _corner(self, context: AttackContext, side: tf.Tensor, seeds: tuple[Any, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        height, width = context.images.shape[1:3]
        shape = [context.batch, 1, 1, 1]
        top = below(height - side + 1, shape, context.fold(*seeds, 0))
        return top, below(width - side + 1, shape, context.fold(*seeds, 1))

    def _exchanged(
        self,
        context: AttackContext,
        delta: tf.Tensor,
        level: tf.Tensor,
        side: tf.Tensor,
        sizes: np.ndarray,
        i: tf.Tensor,
    ) -> tf.Tensor:
        """Moves the norm of one window into another, as a bump added to what is already there."""
        epsilon = context.numbers["epsilon"]
        height, width, channels = context.images.shape[1:]
        top, left = self._corner(context, side, (i, 2))
        window, other = self._window(context, side, (i, 2)), self._window(context, side, (i, 3))
        table = np.zeros((2, len(sizes), height, width), np.float32)
        for number, size in enumerate(sizes):
            table[:, number, :size, :size] = (shape := bump(int(size), self.norm)), shape.T
        shape = tf.gather(tf.constant(table), level, axis=1)
        turned = below(2, [context.batch], context.fold(i, 4))
        rows = (tf.range(height)[None, :] - top[:, 0, 0]) % height
        columns = (tf.range(width)[None, :] - left[:, 0, 0]) % width
        place = tf.gather(tf.gather(shape, turned), rows, axis=1, batch_dims=1)
        place = tf.gather(place, columns, axis=2, batch_dims=1)[..., None]
        fresh = place * signs([context.batch, 1, 1, channels], context.fold(i, 5))
        inside = tf.cast(window, tf.float32)
        here = delta * inside
        fresh += here / (self._planes(here) + _TINY)
        both = self._planes(delta * tf.cast(window | other, tf.float32))
        if self.norm is Norm.L2:
            spare = tf.maximum(tf.square(epsilon) - tf.square(l2_norm(delta)), 0.0) / channels
            wanted = tf.sqrt(spare + tf.square(both))
        else:
            # May exceed the budget, which the projection corrects.
            wanted = tf.maximum(epsilon - length(delta, Norm.L1), 0.0) + channels * both
        fresh *= wanted / (self._planes(fresh) + _TINY)
        moved = tf.where(other, 0.0, delta)
        moved = tf.where(window, fresh, moved)
        return epsilon * moved / (l2_norm(moved) + _TINY) if self.norm is Norm.L2 else moved

    def _planes(self, x: tf.Tensor) -> tf.Tensor:
        """Norm of every channel: (batch, 1, 1, channels)."""
        if self.norm is Norm.L2:
            return tf.sqrt(tf.reduce_sum(tf.square(x), [1, 2], keepdims=True))
        return tf.reduce_sum(tf.abs(x), [1, 2], keepdims=True)


def bump(side: int, norm: Norm = Norm.L2) -> np.ndarray:
    """Two rectangles of opposite sign, each decaying from its center, of unit norm: (side, side). Section 3.4."""
    half = side // 2
    delta = np.zeros((side, side))
    delta[:half] = _falling(half, side, norm)
    delta[half:] = -_falling(side - half, side, norm)
    return _unit(delta, norm).astype(np.float32)


def _falling(rows: int, columns: int, norm: Norm) -> np.ndarray:
    delta, power = np.zeros((rows, columns)), 2 if norm is Norm.L2 else 4
    top, left = rows // 2, columns // 2
    for counter in range(max(rows // 2, columns // 2) + 1):
        bottom, right = top - counter + 2 * counter + 1, left - counter + 2 * counter + 1
        delta[max(top - counter, 0) : bottom, max(left - counter, 0) : right] += 1.0 / (counter + 1) ** power
    return _unit(delta, norm)


def _unit(delta: np.ndarray, norm: Norm) -> np.ndarray:
    size = math.sqrt(float((delta**2).sum())) if norm is Norm.L2 else float(np.abs(delta).sum())
    return delta / max(size, _TINY)
