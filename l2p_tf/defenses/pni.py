"""Parametric noise injection (He, Rakin and Fan, CVPR 2019), with adversarial training."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from l2p_tf.defenses.base import DEFENSES, PGDDefense
from l2p_tf.layers.factory import InjectingFactory, LayerFactory
from l2p_tf.layers.noise import GRANULARITIES
from l2p_tf.layers.parametric_noise import ALPHA, ParametricConv, ParametricDense, ParametricNoise, ParametricWeights
from l2p_tf.options import option

_WEIGHTS = ("weights", "both")
_POINTS: dict[str, tuple[str, ...]] = {
    "weights": (),
    "activations": ("blocks",),
    "both": ("blocks",),
    "input": ("input",),
}


@DEFENSES.register("pni")
@dataclasses.dataclass(frozen=True)
class PNI(PGDDefense):
    """PNI: trained noise alpha * std * N(0, 1) on weights or activations; the 2021 study's NoiseNet.

    Where the paper gives no value, defaults follow the authors' public code. Noise on activations is added at the same
    points as in Learn2Perturb: the outputs of the stem and of every block.
    """

    epsilon: float = option(0.031, "radius of the ball the training attack searches, in pixels of [0, 1]", low=0)
    clean_weight: float = option(0.5, "alpha: weight of the clean loss", low=0)
    adversarial_weight: float = option(0.5, "beta: weight of the adversarial loss; 0 attacks nothing", low=0)
    adversarial_epoch: int = option(5, "first epoch trained on adversarial images", low=0)
    attack_label: str = option("predicted", "label the training attack leaves", choices=("true", "predicted"))
    noise: str = option("weights", "what the noise is added to", choices=tuple(_POINTS))
    granularity: str = option("layer", "what shares one alpha", choices=GRANULARITIES)
    alpha_initial: float = option(ALPHA, "alpha at the start")
    noise_sharing: str = option("example", "of noise on activations: drawn per example, or one map a batch",
                                choices=("example", "batch"))  # fmt: skip

    @property
    def own_layers(self) -> tuple[type[keras.layers.Layer], ...]:
        """Noise layers."""
        weights = (ParametricWeights,) if self.noise in _WEIGHTS else ()
        return (*weights, ParametricNoise) if _POINTS[self.noise] else weights

    def factory(self, seed: int) -> LayerFactory:
        """Returns layers with noisy weights, noise layers, or both."""
        return _Factory(self, seed)


class _Factory(InjectingFactory):
    def __init__(self, options: PNI, seed: int) -> None:
        super().__init__(seed, _POINTS[options.noise], self._noise)
        self.options = options

    def _noise(self, name: str, seed: int) -> keras.layers.Layer:
        o = self.options
        return ParametricNoise(o.alpha_initial, o.granularity, sharing=o.noise_sharing, seed=seed, name=name)

    def _weights(self) -> dict[str, Any]:
        o = self.options
        return {"initial": o.alpha_initial, "granularity": o.granularity, "seed": self.next_seed()}

    def conv(
        self, x: keras.KerasTensor, filters: int, kernel_size: int, name: str, **options: Any
    ) -> keras.KerasTensor:
        if self.options.noise not in _WEIGHTS:
            return super().conv(x, filters, kernel_size, name, **options)
        return ParametricConv(filters=filters, kernel_size=kernel_size, name=name, **options, **self._weights())(x)

    def dense(self, x: keras.KerasTensor, units: int, name: str) -> keras.KerasTensor:
        if self.options.noise not in _WEIGHTS:
            return super().dense(x, units, name)
        return ParametricDense(units=units, **self._weights(), name=name)(x)
