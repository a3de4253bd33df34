"""How architectures make their layers, and where defenses insert theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras

from l2p_tf.layers.batch_norm import BatchNorm
from l2p_tf.layers.conv_norm import ConvNorm
from l2p_tf.layers.image import ChannelNormalization

POINTS = ("blocks", "convolutions", "input")
"""Points where activation noise can be added: see `InjectingFactory`."""


class LayerFactory:
    """Makes the layers of a network. Defenses override its methods; architectures only call them.

    Every method takes a symbolic tensor and the layer's name and returns the layer's output.

    Args:
      seed: all noise of the network derives from it.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed, self._seeds_given = seed, 0

    def image(self, x: keras.KerasTensor, name: str, mean: Sequence[float], std: Sequence[float]) -> keras.KerasTensor:
        """Normalizes images in [0, 1], (batch, height, width, channels), per channel: the network's input."""
        return self.normalized(ChannelNormalization(mean, std, name=name)(self.pixels(x)))

    # Hooks, called at the points of a network where noise may be added, also for networks made elsewhere.

    def pixels(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Returns the raw images in [0, 1]."""
        return x

    def normalized(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Returns the normalized images."""
        return x

    def before_conv(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Returns the input of the convolution called `name`."""
        del name
        return x

    def after_conv(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Returns the output of the convolution called `name`, after its batch norm."""
        del name
        return x

    def output(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Returns a block's output (after its last batch norm and residual sum), before its activation."""
        del name
        return x

    # Methods that make layers.

    def conv(
        self,
        x: keras.KerasTensor,
        filters: int,
        kernel_size: int,
        name: str,
        *,
        strides: int = 1,
        normalize: bool = True,
        bias: bool = True,
    ) -> keras.KerasTensor:
        """Adds a convolution with batch norm (`normalize`), with a bias (`bias`), or with neither."""
        x = ConvNorm(filters, kernel_size, strides, normalize, bias, name=name)(self.before_conv(x, name))
        return self.after_conv(x, name)

    def norm(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Adds a separate batch norm that does not follow a convolution."""
        return BatchNorm(name=name)(x)

    def dense(self, x: keras.KerasTensor, units: int, name: str) -> keras.KerasTensor:
        """Adds a dense layer with bias."""
        return keras.layers.Dense(units, name=name)(x)

    def next_seed(self) -> int:
        """Returns a distinct seed for each randomized layer."""
        self._seeds_given += 1
        return (self._seed * 1009 + self._seeds_given) % 2**31


class InjectingFactory(LayerFactory):
    """Plain layers, with noise added at some points of the network.

    Args:
      seed: seed of all noise of the network.
      points: `blocks`: outputs of the stem and of every block, before the activation; `convolutions`: after every
      convolution and its batch norm; `input`: the normalized image.
      make: makes the noise layer from a name and a seed.
    """

    def __init__(self, seed: int, points: Sequence[str], make: Callable[[str, int], keras.layers.Layer]) -> None:
        super().__init__(seed)
        self.points, self.make = tuple(points), make

    def normalized(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Adds noise if `input` is a point."""
        return self._at("input", x, "input_noise")

    def after_conv(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Adds noise if `convolutions` is a point."""
        return self._at("convolutions", x, f"{name}_noise")

    def output(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Adds noise after the last batch norm and residual sum, before the activation (supplement, section 1.1)."""
        return self._at("blocks", x, name)

    def _at(self, point: str, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return self.make(name, self.next_seed())(x) if point in self.points else x
