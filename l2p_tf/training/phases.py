"""Models whose steps differ between phases of a training, as decided on the host between steps."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from l2p_tf.layers.noise import NoiseLayer, noise_known, noise_state, seed_states
from l2p_tf.training import replicas
from l2p_tf.training.inputs import CheckedModel

Phase = frozenset[str]
"""What a step does beyond every step, such as `adversarial`."""
NOISE, NO_NOISE = "noise", "no noise"
"""Phases in which all noise is on, or off."""
Logs = dict[str, tf.Tensor]


class PhasedModel(CheckedModel):
    """A Keras model that compiles a step for each phase of its training, on one device or under a strategy.

    Conditions within a compiled step would not work: no optimizer can be applied inside them under a distribution
    strategy. Keras's own splitting of batches under a strategy fails with several workers and averages where it should
    weight, so the model receives whole batches and `replicas.run` distributes them.

    Attributes:
      strategy: the strategy in whose scope the model was created; None for one device.
    """

    train_function: Any
    test_function: Any

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        here = tf.distribute.get_strategy() if tf.distribute.has_strategy() else None
        self.strategy: tf.distribute.Strategy | None = here
        self._distribute_strategy = None

    def phase(self, training: bool = True) -> Phase:
        """Returns the phase of the next step; called on the host before each."""
        raise NotImplementedError

    def take_step(self, data: Any, phase: Phase, training: bool) -> None:
        """Takes a step of a phase on a batch, or evaluates the batch without training."""
        raise NotImplementedError

    def logs(self, training: bool) -> Logs:
        """Returns the running means after a step."""
        raise NotImplementedError

    @property
    def noise_generators(self) -> list[keras.Variable]:
        """States of the seed generators that are separate on every replica."""
        raise NotImplementedError

    def train_step(self, data: Any, phase: Phase | None = None) -> Logs:
        """Trains on a batch; returns the running means. With `phase` None, the current one is used."""
        return self._step(data, phase, training=True)

    def test_step(self, data: Any, phase: Phase | None = None) -> Logs:
        """Evaluates a batch; returns the running means."""
        return self._step(data, phase, training=False)

    def _step(self, data: Any, phase: Phase | None, training: bool) -> Logs:
        phase = self.phase(training) if phase is None else phase
        if self.strategy is None:
            self.take_step(data, phase, training)
            return self.logs(training)
        with self.strategy.scope():
            take = functools.partial(self.take_step, phase=phase, training=training)
            replicas.run(self.strategy, take, data, self.noise_generators)
            return self.logs(training)

    def make_train_function(self, force: bool = False) -> None:
        """Makes a function from batches to logs that compiles a step when its phase begins."""
        if self.train_function is None or force:
            self.train_function = self._by_phase(self.train_step, training=True)

    def make_test_function(self, force: bool = False) -> None:
        """As `make_train_function`."""
        if self.test_function is None or force:
            self.test_function = self._by_phase(self.test_step, training=False)

    def _by_phase(self, step: Callable[..., Logs], training: bool) -> Callable[[Iterator[Any]], Logs]:
        functions: dict[Phase, Callable[[Iterator[Any]], Logs]] = {}

        def function(batches: Iterator[Any]) -> Logs:
            phase = self.phase(training)
            if phase not in functions:
                functions[phase] = self._make_function(functools.partial(step, phase=phase))
            return functions[phase](batches)

        return function

    def _make_function(self, step_function: Callable[[Any], Logs]) -> Callable[[Iterator[Any]], Logs]:
        """Keras's on one device; under a strategy one that takes whole batches."""
        if self.strategy is None:
            function: Callable[[Iterator[Any]], Logs] = super()._make_function(step_function)
            return function
        if not self.run_eagerly:
            step_function = tf.function(step_function, autograph=False, reduce_retracing=True)
        step_function = self._autoconvert_optionals(step_function)

        def steps(batches: Iterator[Any]) -> Logs:
            logs = step_function(next(batches))
            for batch in itertools.islice(batches, self.steps_per_execution - 1):
                logs = step_function(batch)
            return logs

        return steps


def generators_of(model: keras.Model) -> list[keras.Variable]:
    """Returns the states of a model's seed generators without duplicates."""
    return list({id(state): state for state in seed_states(model)}.values())


class NoisePhase:
    """Whether a model's noise is on. Layers are queried only after a switch, because that waits for the device."""

    def __init__(self, model: keras.Model) -> None:
        self.model, self.switches, self.phase = model, -1, frozenset[str]()

    def now(self) -> Phase:
        """Returns `noise`, `no noise`, or nothing if layers differ or there are none."""
        if self.switches != NoiseLayer.switches:
            with tf.init_scope():  # The caller may be tracing a step.
                noisy = noise_state(self.model)
            names = [] if noisy is None else [NOISE] if noisy else [NO_NOISE]
            self.switches, self.phase = NoiseLayer.switches, frozenset(names)
        return self.phase


def traced_for(phase: Phase) -> contextlib.AbstractContextManager[None]:
    """Traces graphs for the noise of a phase."""
    return noise_known(True if NOISE in phase else False if NO_NOISE in phase else None)
