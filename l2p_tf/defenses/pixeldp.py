"""PixelDP (Lecuyer et al., IEEE S&P 2019): noise after a bounded first convolution, with a certificate."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras

from l2p_tf.defenses.base import DEFENSES, PGDDefense
from l2p_tf.layers.activation_noise import FixedNoise
from l2p_tf.layers.bounded_conv import BoundedConv
from l2p_tf.layers.factory import LayerFactory
from l2p_tf.layers.image import ChannelNormalization
from l2p_tf.options import option


@DEFENSES.register("pixeldp")
@dataclasses.dataclass(frozen=True)
class PixelDP(PGDDefense):
    """PixelDP: Gaussian noise after the first convolution, whose l_2 sensitivity is kept at 1.

    Trained on clean images, as published; with `adversarial_weight` above 0, also on attacked ones. Images are centered
    but not scaled, and the first batch norm follows the noise, so the sensitivity is that of the convolution.
    `--certify=pixeldp` computes certified radii.
    """

    clean_weight: float = option(1.0, "alpha: weight of the clean loss", low=0)
    adversarial_weight: float = option(0.0, "beta: weight of the adversarial loss; 0 attacks nothing", low=0)
    construction_bound: float = option(
        0.1, "L: the l_2 radius, in pixels of [0, 1], that the noise is made for", above=0
    )
    dp_epsilon: float = option(1.0, "epsilon of the mechanism at that radius", above=0, high=1)
    dp_delta: float = option(0.05, "delta of the mechanism at that radius", above=0, high=1)
    prediction_draws: int = option(10, "draws of the noise that one answer averages", low=1)

    @property
    def std(self) -> float:
        """Standard deviation of the noise: that of the Gaussian mechanism for a sensitivity of 1 (section II.B)."""
        return self.construction_bound * math.sqrt(2.0 * math.log(1.25 / self.dp_delta)) / self.dp_epsilon

    @property
    def own_layers(self) -> tuple[type[keras.layers.Layer], ...]:
        """The bounded convolution and the noise."""
        return (BoundedConv, FixedNoise)

    def factory(self, seed: int) -> LayerFactory:
        """Returns plain layers except for the image and the first convolution."""
        return _Factory(self, seed)


class _Factory(LayerFactory):
    def __init__(self, options: PixelDP, seed: int) -> None:
        super().__init__(seed)
        self.options, self.first = options, True

    def image(self, x: keras.KerasTensor, name: str, mean: Sequence[float], std: Sequence[float]) -> keras.KerasTensor:
        """Centers only. All up to the noise is float32: rounding could push the sensitivity above its bound."""
        self.first = True
        return ChannelNormalization(mean, [1.0] * len(std), dtype="float32", name=name)(x)

    def conv(
        self,
        x: keras.KerasTensor,
        filters: int,
        kernel_size: int,
        name: str,
        *,
        normalize: bool = True,
        **options: Any,
    ) -> keras.KerasTensor:
        if not self.first:
            return super().conv(x, filters, kernel_size, name, normalize=normalize, **options)
        self.first = False
        x = BoundedConv(filters, kernel_size, normalize=False, dtype="float32", name=name, **options)(x)
        x = FixedNoise(self.options.std, seed=self.next_seed(), dtype="float32", name=f"{name}_noise")(x)
        return self.norm(x, f"{name}_norm") if normalize else x
