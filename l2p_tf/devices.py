"""Devices and processes of a training."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import tensorflow as tf

from l2p_tf.environment import STRATEGIES
from l2p_tf.types import UserError

_TF_CONFIG = "TF_CONFIG"


@dataclasses.dataclass(frozen=True)
class Devices:
    """The replicas of a classifier, and this process among the workers that hold them.

    The workers of a training run the same command on a shared folder. The first is the chief, the only one that writes
    permanent files. Decisions outside the compiled step, such as when to stop, are made jointly.

    Attributes:
      strategy: the distribution strategy in whose scope models are created; None for one device.
      worker: number of this process, from 0.
      workers: number of processes.
    """

    strategy: tf.distribute.Strategy | None = None
    worker: int = 0
    workers: int = 1

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.worker == 0

    @property
    def replicas(self) -> int:
        """Total number of copies of the classifier over all processes."""
        return int(self.strategy.num_replicas_in_sync) if self.strategy else 1

    def own_rows(self, batch_size: int) -> slice:
        """Returns the rows of a batch that the replicas of this process take, as `training.replicas.run` shares it."""
        each = self.replicas // self.workers
        first, end = self.worker * each, (self.worker + 1) * each
        return slice(first * batch_size // self.replicas, end * batch_size // self.replicas)

    def local_scope(self) -> AbstractContextManager[Any]:
        """Returns the scope of all devices of this process, for evaluations, whose images the workers share."""
        if self.workers == 1:
            return self.strategy.scope() if self.strategy else contextlib.nullcontext()
        several = len(tf.config.list_logical_devices("GPU")) > 1
        return mirrored().scope() if several else contextlib.nullcontext()

    def largest(self, values: Sequence[float]) -> np.ndarray:
        """Returns the maximum of each number over the workers: float64; every worker must call it."""
        return self._gathered(values).max(0)

    def of_chief(self, compute: Callable[[], Sequence[float]], count: int) -> np.ndarray:
        """Returns `count` numbers computed by the chief, float64; every worker must call it."""
        return self._gathered(compute() if self.is_chief else np.zeros(count))[0]

    def wait(self) -> None:
        """Blocks until every worker has called it."""
        self.largest([0.0])

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """Runs the chief first; the others start when it is done and find its results."""
        if not self.is_chief:
            self.wait()
        yield
        if self.is_chief:
            self.wait()

    def _gathered(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """Returns the numbers of all workers in order: (workers, count)."""
        if self.workers == 1:
            return np.asarray(values, np.float64)[np.newaxis]
        own = np.zeros((self.workers, len(values)))
        own[self.worker] = values
        return np.asarray(self._summed(tf.constant(own)))

    @functools.cached_property
    def _summed(self) -> Callable[[tf.Tensor], tf.Tensor]:
        strategy = self.strategy
        assert strategy is not None

        def summed(own: tf.Tensor) -> tf.Tensor:
            # All replicas of a worker have the same value.
            share = own * (self.workers / self.replicas)
            return strategy.reduce("sum", strategy.run(lambda part: part * 1.0, args=(share,)), axis=None)

        return tf.function(summed, autograph=False)


@functools.cache
def open_devices(kind: str = "auto") -> Devices:
    """Opens the devices of a kind; once per process, before TensorFlow's first operation.

    Args:
      kind: one of `STRATEGIES`; `auto` is `multi_worker` if TF_CONFIG is set, `mirrored` if there are several GPUs,
      otherwise `one`.

    Raises:
      UserError: `multi_worker` with a missing or invalid TF_CONFIG.
    """
    if kind not in STRATEGIES:
        raise UserError(f"`strategy` should be one of {', '.join(STRATEGIES)}. Received: {kind!r}")
    gpus = tf.config.list_physical_devices("GPU")
    if kind == "auto":
        kind = "multi_worker" if os.environ.get(_TF_CONFIG) else "mirrored" if len(gpus) > 1 else "one"
    if kind == "multi_worker":
        workers, index = read_tf_config(os.environ.get(_TF_CONFIG, ""))
        return Devices(tf.distribute.MultiWorkerMirroredStrategy(), index, workers)
    if kind == "mirrored":
        return Devices(mirrored())
    return Devices()


@functools.cache
def mirrored() -> tf.distribute.MirroredStrategy:
    """Returns a strategy with a replica on each GPU of this machine, or on each logical CPU if it has none."""
    return tf.distribute.MirroredStrategy([
        device.name for device in tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    ])  # fmt: skip


def read_tf_config(text: str) -> tuple[int, int]:
    """Returns the number of workers in TF_CONFIG, and the index of this process.

    Raises:
      UserError: it is missing or invalid.
    """
    example = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
    try:
        config: Any = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        workers, index = list(cluster["worker"]), int(task["index"])
        right = set(cluster) == {"worker"} and task["type"] == "worker" and 0 <= index < len(workers)
        right = right and all(isinstance(w, str) and ":" in w for w in workers) and len(set(workers)) == len(workers)
    except (ValueError, KeyError, TypeError):
        right = False
    if not right:
        raise UserError(
            f"--strategy=multi_worker needs the environment variable {_TF_CONFIG} in every process, with the address "
            f"of each and the number of its own, such as {example}. Received: {text!r}"
        )
    return len(workers), index
