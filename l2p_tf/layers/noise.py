"""Base of all randomized layers, and functions that switch, seed and query the noise of a whole model."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from l2p_tf.layers.logits import Logits

PER_EXAMPLE = "example"
PER_BATCH = "batch"
GRANULARITIES = ("element", "channel", "layer")
"""Which elements can share one noise parameter."""

_OTHER_NOISE = "_l2p_other_noise"
_known: contextvars.ContextVar[bool | None] = contextvars.ContextVar("noise_known", default=None)


@contextlib.contextmanager
def noise_known(on: bool | None) -> Iterator[None]:
    """Traces graphs for noise that is on in all layers, or in none, without conditions on `active`.

    Conditions, one per layer and pass, would make the graphs of deep networks half as large again. None traces them.
    """
    token = _known.set(on)
    try:
        yield
    finally:
        _known.reset(token)


def shared_shape(shape: tuple[int | None, ...], granularity: str) -> tuple[int | None, ...]:
    """Shape of a parameter that broadcasts to `shape`, which is channels-last."""
    if granularity == "element":
        return shape
    return (1,) * (len(shape) - 1) + (shape[-1:] if granularity == "channel" else (1,))


class NoiseLayer(keras.layers.Layer):
    """Base of every layer whose output is random, in training and at prediction.

    Attributes:
      active: a bool variable; if False the layer is exactly its noiseless version. It is saved with the model.
      seed_generator: source of the layer's seeds.
      switches: class-wide count of switches; cached findings about a model's noise expire when it changes.
      draws_per: `example` if every example of a batch gets its own draw, `batch` if one draw serves the batch.
      Expectations may tile an image within a batch only in the first case.
    """

    draws_per = PER_EXAMPLE
    switches = 0

    def __init__(self, *, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: Any) -> None:
        """Creates the switch; subclasses must call it."""
        del input_shape
        self.active = self.add_weight(name="active", shape=(), dtype="bool", initializer="ones", trainable=False)

    @property
    def is_on(self) -> bool:
        """Whether `active` is True."""
        return bool(tf.convert_to_tensor(self.active.value))

    def when_active(self, noisy: Callable[[], tf.Tensor], noiseless: Callable[[], tf.Tensor]) -> tf.Tensor:
        """Returns `noisy()` if `active` is True, else `noiseless()`; traces a condition only if needed."""
        on = _known.get()
        if on is None:
            return tf.cond(self.active.value, noisy, noiseless)
        return noisy() if on else noiseless()

    @property
    def noise_parameters(self) -> list[keras.Variable]:
        """Trainable parameters of the noise strength, without the weights it may be added to."""
        return []

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "seed": self.seed}


def noise_layers(model: keras.Model) -> list[NoiseLayer]:
    """Returns a model's randomized layers in order, including nested ones."""
    return [layer for layer in model._flatten_layers(include_self=False) if isinstance(layer, NoiseLayer)]


def noise_parameters(model: keras.Model) -> list[keras.Variable]:
    """Returns the trainable parameters of a model's noise, such as theta."""
    return [variable for layer in noise_layers(model) for variable in layer.noise_parameters]


def set_noise(model: keras.Model, on: bool) -> None:
    """Switches all noise of a model; when off, the classifier is deterministic."""
    _switch([(layer, on) for layer in noise_layers(model)])


def _switch(layers: list[tuple[NoiseLayer, bool]]) -> None:
    NoiseLayer.switches += 1
    for layer, on in layers:
        layer.active.assign(on)


def noise_state(model: keras.Model) -> bool | None:
    """Whether all noise of a model is on (True) or off (False); None if mixed or if there is none."""
    states = {layer.is_on for layer in noise_layers(model)}
    return states.pop() if len(states) == 1 else None


@contextlib.contextmanager
def without_noise(model: keras.Model) -> Iterator[None]:
    """Switches all noise of a model off, and restores it afterward."""
    layers = noise_layers(model)
    former = [layer.is_on for layer in layers]
    set_noise(model, False)
    try:
        yield
    finally:
        _switch(list(zip(layers, former, strict=True)))


def is_randomized(model: keras.Model) -> bool:
    """Whether predictions vary for the same image: the model's noise is on, or it has noise of another kind."""
    return has_other_noise(model) or any(layer.is_on for layer in noise_layers(model))


def draws_per_example(model: keras.Model) -> bool:
    """Whether copies of one image in a batch get independent noise (also True without any noise).

    Other noise than that of this package's layers is assumed to be drawn once per pass.
    """
    return not has_other_noise(model) and all(layer.draws_per == PER_EXAMPLE for layer in noise_layers(model))


def has_other_noise(model: keras.Model) -> bool:
    """Whether predictions varied, now or at import, although all `NoiseLayer`s were off."""
    return bool(vars(model).get(_OTHER_NOISE, False)) or any(
        isinstance(layer, Logits) and layer.randomized for layer in model._flatten_layers(include_self=False)
    )


def mark_randomized(model: keras.Model) -> None:
    """Marks the model as having noise of another kind, such as dropout that is always on."""
    vars(model)[_OTHER_NOISE] = True


def seed_states(model: keras.Model) -> list[keras.Variable]:
    """States of the model's seed generators, including Keras's own layers: int64 variables of shape (2,)."""
    layers = model._flatten_layers(include_self=True)
    return [generator.state for layer in layers for generator in layer._seed_generators]


def reseed(model: keras.Model, seed: tf.Tensor) -> list[tf.Tensor]:
    """Derives every noise layer's seed from one seed, within a graph or eagerly.

    Args:
      model: the classifier.
      seed: two integers.

    Returns:
      The former states, for `restore_seeds`.
    """
    states = seed_states(model)
    former = [tf.identity(state.value) for state in states]
    if states:
        fresh = tf.random.stateless_uniform(
            [len(states)], seed, minval=0, maxval=2**31 - 1, dtype=tf.int64, alg=tf.random.Algorithm.PHILOX
        )
        for index, state in enumerate(states):
            state.assign(tf.stack([fresh[index], tf.zeros((), tf.int64)]))
    return former


class SeedScope(keras.StatelessScope):
    """Derives every draw of a model from one seed without reading or writing state, which makes it a pure function.

    Each draw of any seed generator, including Keras's own layers, gets the seed plus the index of the draw. Takes
    effect when a graph is traced, so that concurrent calls of the graph share nothing.

    Args:
      seed: int64 (2,).
    """

    def __init__(self, seed: tf.Tensor) -> None:
        super().__init__(initialize_variables=False)
        self.seed, self.draws = seed, 0

    def get_current_value(self, variable: keras.Variable) -> tf.Tensor | None:
        """Returns the seed of a generator's next draw; other variables as usual."""
        if not is_seed_state(variable):
            return super().get_current_value(variable)
        return self.seed + tf.constant([0, self.draws], tf.int64)

    def add_update(self, update: tuple[keras.Variable, tf.Tensor]) -> None:
        """Advances to the next seed when a generator's state is updated."""
        if is_seed_state(update[0]):
            self.draws += 1
        else:
            super().add_update(update)


def is_seed_state(variable: keras.Variable) -> bool:
    """Whether a variable is the state of a seed generator."""
    return bool(variable.name == "seed_generator_state")


def restore_seeds(model: keras.Model, former: list[tf.Tensor]) -> None:
    """Restores the states returned by `reseed`."""
    for state, value in zip(seed_states(model), former, strict=True):
        state.assign(value)


def noise_statistics(classifier: keras.Model) -> dict[str, float]:
    """Returns `<parameter>/<layer>/min`, `mean` and `max` of every trainable noise parameter, such as `theta`."""
    statistics: dict[str, float] = {}
    for layer in noise_layers(classifier):
        for variable in layer.noise_parameters:
            values = keras.ops.convert_to_numpy(variable)
            for name, reduce in (("min", np.min), ("mean", np.mean), ("max", np.max)):
                statistics[f"{variable.name}/{layer.name}/{name}"] = float(reduce(values))
    return statistics
