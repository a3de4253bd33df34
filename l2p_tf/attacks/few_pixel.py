"""The few-pixel attack by differential evolution (Su et al. 2019)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import keras
import tensorflow as tf

from l2p_tf.attacks.base import ATTACKS
from l2p_tf.attacks.context import AttackContext, State
from l2p_tf.attacks.criterion import LOSSES, TARGETS
from l2p_tf.attacks.iterative import IterativeAttack
from l2p_tf.attacks.randomness import below, standard_normal, uniform
from l2p_tf.attacks.sampling import losses_of
from l2p_tf.options import option
from l2p_tf.types import UserError


@ATTACKS.register("few_pixel")
@dataclasses.dataclass(frozen=True)
class FewPixel(IterativeAttack):
    """Few pixels of any color, found by differential evolution; needs no gradient (Su et al. 2019)."""

    pixels: int = option(1, "pixels changed at most", low=1)
    population: int = option(400, "candidates per image", low=4)
    generations: int = option(75, "generations after the first", low=0)
    mutation: float = option(0.5, "F: weight of the difference of two candidates", low=0, high=2)
    loss: str = option("margin", "loss to ascend", choices=LOSSES)
    target: str = option("none", "class to arrive at; none: any class but the label", choices=TARGETS)
    draws: int = option(1, "draws of the model's noise each loss is averaged over", low=1)

    TRACED_OPTIONS: ClassVar[tuple[str, ...]] = ("mutation",)
    CHUNK: ClassVar[int] = 5
    STATIC_BATCH: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """Label such as `1 pixel` or `3 pixels`."""
        return self.described(f"{self.pixels} pixel{'s' if self.pixels > 1 else ''}")

    def facts(self) -> dict[str, Any]:
        """The budget is a number of pixels."""
        return {**super().facts(), "norm": "l0", "epsilon": float(self.pixels), "steps": self.generations}

    @property
    def iterations(self) -> int:
        """The first population and every generation after it."""
        return self.generations + 1

    def check(self, model: keras.Model) -> None:
        """Raises UserError if an image has fewer pixels than should be changed."""
        super().check(model)
        height, width = model.input_shape[1:3]
        if height and width and self.pixels > height * width:
            raise UserError(
                f"`pixels` of few_pixel should be at most {height * width}, those of an image. Received: {self.pixels}"
            )

    def cost(self, draws: int, classes: int) -> tuple[int, int]:
        """One forward pass for every candidate."""
        del classes
        return 0, self.population * draws

    def begin(self, context: AttackContext) -> State:
        """Draws uniform positions and colors around mid-range, to be evaluated in round 0."""
        channels = int(context.images.shape[-1])
        shape = [context.batch, self.population, self.pixels]
        places = uniform([*shape, 2], context.fold(0))
        colors = tf.clip_by_value(0.5 + 0.5 * standard_normal([*shape, channels], context.fold(1)), 0.0, 1.0)
        fitness = tf.tile(context.full(float("-inf"))[:, None], [1, self.population])
        return {"adversarial": context.images, "genes": tf.concat([places, colors], -1), "fitness": fitness}

    def step(self, context: AttackContext, i: tf.Tensor, state: State) -> State:
        """Compares every candidate with a child of three others; the better one survives."""
        genes = state["genes"]
        children = tf.where(i == 0, genes, self._children(context, i, genes))
        losses, shares = losses_of(
            context,
            lambda first, many: painted(context.images, tf.gather(children, first + tf.range(many), axis=1)),
            self.population,
            self.loss,
            self.draws,
        )
        # Candidates that meet the criterion rank above all others, whatever their loss.
        fitness = losses + 1e6 * shares
        better = fitness > state["fitness"]
        genes = tf.where(better[:, :, None, None], children, genes)
        fitness = tf.where(better, fitness, state["fitness"])
        first = tf.gather(genes, tf.argmax(fitness, -1, tf.int32)[:, None], axis=1, batch_dims=1)
        done = tf.reduce_any(shares > 0.0, -1) if context.deterministic else context.full(False, tf.bool)
        return {"adversarial": painted(context.images, first)[:, 0], "genes": genes, "fitness": fitness, "done": done}

    def _children(self, context: AttackContext, i: tf.Tensor, genes: tf.Tensor) -> tf.Tensor:
        """Returns candidates plus F times the difference of two others, three distinct parents for each child."""
        count, shape = self.population, [context.batch, self.population]
        first = below(count, shape, context.fold(i, 0))
        second, third = below(count - 1, shape, context.fold(i, 1)), below(count - 2, shape, context.fold(i, 2))
        third += tf.cast(third >= second, tf.int32)
        indices = (first, (first + 1 + second) % count, (first + 1 + third) % count)
        parents = (tf.gather(genes, k, axis=1, batch_dims=1) for k in indices)
        a, b, c = parents
        children = a + context.numbers["mutation"] * (b - c)
        places, colors = children[..., :2], children[..., 2:]
        anew = uniform([*shape, self.pixels, 2], context.fold(i, 3))
        places = tf.where((places >= 0.0) & (places < 1.0), places, anew)
        return tf.concat([places, tf.clip_by_value(colors, 0.0, 1.0)], -1)


def painted(images: tf.Tensor, genes: tf.Tensor) -> tf.Tensor:
    """Paints pixels onto images.

    Args:
      images: float32 (batch, height, width, channels).
      genes: float32 (batch, many, pixels, 2 + channels) in [0, 1]: row, column and color of every pixel.

    Returns:
      (batch, many, height, width, channels).
    """
    height, width = images.shape[1:3]
    x = images[:, None]
    for pixel in range(genes.shape[2]):
        gene = genes[:, :, pixel]
        row = tf.minimum(tf.cast(gene[..., 0] * height, tf.int32), height - 1)
        column = tf.minimum(tf.cast(gene[..., 1] * width, tf.int32), width - 1)
        here = tf.range(height)[:, None] == row[..., None, None]
        here &= tf.range(width)[None, :] == column[..., None, None]
        x = tf.where(here[..., None], gene[..., None, None, 2:], x)
    return x
