"""How architectures make their layers, and where defenses put theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras

from l2p_tf.layers.batch_norm import BatchNorm
from l2p_tf.layers.conv_norm import ConvNorm
from l2p_tf.layers.image import ChannelNormalization

POINTS = ("blocks", "convolutions", "input")
"""Where noise on activations may be added: see `InjectingFactory`."""


class LayerFactory:
    """Makes the layers of a network. Architectures know nothing else of defenses; a defense overrides a method.

    Every method takes a symbolic tensor and the layer's name and returns the layer's output.

    Args:
      seed: all noise of the network derives from it.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed, self._seeds_given = seed, 0

    def image(self, x: keras.KerasTensor, name: str, mean: Sequence[float], std: Sequence[float]) -> keras.KerasTensor:
        """The images in [0, 1], (batch, height, width, channels), normalized per channel: the network's input."""
        return self.normalized(ChannelNormalization(mean, std, name=name)(self.pixels(x)))

    # What follows is asked at the points of a network where noise may be added, also of networks made elsewhere.

    def pixels(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """The images in [0, 1] as they come."""
        return x

    def normalized(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """The normalized images."""
        return x

    def before_conv(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """What the convolution called `name` reads."""
        del name
        return x

    def after_conv(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """What the convolution called `name` gives, after its batch norm."""
        del name
        return x

    def output(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """What a block gives (after its last batch norm and residual sum), before its activation."""
        del name
        return x

    # What follows makes layers.

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
        """A convolution with batch norm (`normalize`), with a bias (`bias`), or with neither."""
        x = ConvNorm(filters, kernel_size, strides, normalize, bias, name=name)(self.before_conv(x, name))
        return self.after_conv(x, name)

    def norm(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """A batch norm by itself, where it does not follow a convolution."""
        return BatchNorm(name=name)(x)

    def dense(self, x: keras.KerasTensor, units: int, name: str) -> keras.KerasTensor:
        """A dense layer with bias."""
        return keras.layers.Dense(units, name=name)(x)

    def next_seed(self) -> int:
        """A seed of its own for each randomized layer."""
        self._seeds_given += 1
        return (self._seed * 1009 + self._seeds_given) % 2**31


class InjectingFactory(LayerFactory):
    """Plain layers, with noise added at some points of the network.

    Args:
      seed: all noise of the network derives from it.
      points: `blocks`: what the stem and every block give, before the activation; `convolutions`: after every
        convolution and its batch norm; `input`: the normalized image.
      make: the noise layer of a name and a seed.
    """

    def __init__(self, seed: int, points: Sequence[str], make: Callable[[str, int], keras.layers.Layer]) -> None:
        super().__init__(seed)
        self.points, self.make = tuple(points), make

    def normalized(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """With noise where `input` is a point."""
        return self._at("input", x, "input_noise")

    def after_conv(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """With noise where `convolutions` is a point."""
        return self._at("convolutions", x, f"{name}_noise")

    def output(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """After the last batch norm and residual sum, before the activation (supplement, section 1.1)."""
        return self._at("blocks", x, name)

    def _at(self, point: str, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return self.make(name, self.next_seed())(x) if point in self.points else x
