"""One attack on many images, slice by slice; what is done is kept on disk, so that it is not done again."""

from __future__ import annotations

import dataclasses
import pathlib
import time
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from l2p_tf import inference
from l2p_tf.artifacts import atomic_write
from l2p_tf.attacks.base import Attack
from l2p_tf.attacks.context import AttackOutput
from l2p_tf.attacks.projection import norms
from l2p_tf.data.view import ImageView
from l2p_tf.evaluation.options import EvaluationOptions

_CLOCK_SECONDS = 10.0
_KEY = "checkpoint_key"
"""The array in a file that says whose it is."""
Arrays = dict[str, np.ndarray]
PER_EXAMPLE = ("prediction", "probability", "success", "wrong", "l0", "l2", "linf", "gradients", "forwards", "seconds")


@dataclasses.dataclass(frozen=True)
class Folder:
    """Checkpoints of attacks: one file a key, in a folder that is there. Satisfies `context.CheckpointStore`."""

    path: pathlib.Path
    prefix: str = ""

    def load(self, key: str) -> Arrays | None:
        """The arrays of a key; None where there are none, or they cannot be read and are to be made again."""
        try:
            with self._file(key).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error):
            return None
        # What lies under the name of another is not its.
        return arrays if str(arrays.pop(_KEY, "")) == self.prefix + key else None

    def save(self, key: str, arrays: dict[str, Any]) -> None:
        """Keeps the arrays, whole or not at all."""
        named = {**arrays, _KEY: np.array(self.prefix + key)}
        atomic_write(self._file(key), lambda file: np.savez(file, **named))

    def clear(self) -> None:
        """Removes every key."""
        for file in self.path.glob(f"{self.prefix}*.npz"):
            file.unlink(missing_ok=True)

    def _file(self, key: str) -> pathlib.Path:
        return self.path / f"{self.prefix}{key}.npz"


@dataclasses.dataclass(frozen=True)
class ChunkedEvaluation:
    """Images under one attack, or under none.

    Attributes:
      model: the classifier.
      attack: None for no attack.
      images: uint8 (count, height, width, channels).
      labels: int32 (count,).
      shown: positions of the images whose adversarial versions are wanted, sorted.
      parts: the folder that keeps what is done.
      seed: of examples, attacks and draws.
      batch_size: images a compiled run.
      slice_size: images attacked together: what has fallen among them makes room in their batches.
      jit_compile: as attacks take it.
      prediction_draws: draws of the noise that one answer averages.
    """

    model: keras.Model
    attack: Attack | None
    images: np.ndarray | ImageView
    labels: np.ndarray
    shown: np.ndarray
    parts: pathlib.Path
    seed: int
    batch_size: int
    slice_size: int
    jit_compile: bool | None
    prediction_draws: int = 1

    @classmethod
    def of(
        cls, options: EvaluationOptions, model: keras.Model, attack: Attack | None,
        images: np.ndarray | ImageView, labels: np.ndarray, shown: np.ndarray, parts: pathlib.Path,
    ) -> ChunkedEvaluation:  # fmt: skip
        """One attack on these images, as the options have it."""
        return cls(
            model, attack, images, labels, shown, parts, options.seed, options.batch_size, options.slice_size,
            options.jit_compile, options.prediction_draws or 1,
        )  # fmt: skip

    def run(
        self, number: int, repeat: int, advance: Callable[..., None], right: np.ndarray | None = None
    ) -> tuple[Arrays, np.ndarray]:
        """Attacks all images, or finds them done.

        Args:
          number: of the attack, for the names of what is kept.
          repeat: of the evaluation; decides the draws.
          advance: moves a bar by a number of images, and shows the robust accuracy so far.
          right: bool (count,), which images are classified correctly as they are; None where that is not known.

        Returns:
          Arrays of `PER_EXAMPLE`, and the adversarial images of `shown`.
        """
        found: list[Arrays] = []
        robust, done = 0.0, 0
        store = Folder(self.parts)
        for start in range(0, len(self.images), self.slice_size):
            rows = np.arange(start, min(start + self.slice_size, len(self.images)))
            key = f"{number:02d}-{repeat:02d}-{start:07d}"
            part = store.load(key)
            moved = 0.0
            # An attack only finds out in time what is misclassified already.
            most = len(rows) if right is None else int(right[rows].sum())

            def progress(share: float, left: int, rows: np.ndarray = rows, most: int = most) -> None:
                nonlocal moved
                now, left = share * len(rows), min(left, most)
                advance(max(0.0, now - moved), accuracy=f"{100 * (robust + left) / (done + len(rows)):.1f}%")  # noqa: B023
                moved = max(moved, now)

            if part is None:
                own = Folder(self.parts, f"{key}+")
                part = self._slice(rows, repeat, start, progress, own)
                store.save(key, part)
                own.clear()
            robust += len(rows) - float((part["wrong"] >= 0.5).sum())
            done += len(rows)
            advance(len(rows) - moved, accuracy=f"{100 * robust / done:.1f}%")
            found.append(part)
        joined = {key: np.concatenate([part[key] for part in found]) for key in PER_EXAMPLE}
        return joined, np.concatenate([part["pictures"] for part in found])

    def _slice(self, rows: np.ndarray, repeat: int, start: int, progress: Any, store: Folder) -> Arrays:
        seed = int(inference.seed_pair(self.seed, repeat, start)[0])
        images, labels = inference.checked_images(self.images[rows]), self.labels[rows]
        how: dict[str, Any] = {"batch_size": self.batch_size, "jit_compile": self.jit_compile}
        earlier = store.load("clock")
        begun = time.monotonic() - (float(earlier["seconds"]) if earlier else 0.0)

        saved = begun

        def tell(share: float, left: int) -> None:
            nonlocal saved
            if (now := time.monotonic()) - saved > _CLOCK_SECONDS:
                store.save("clock", {"seconds": np.array(now - begun)})
                saved = now
            progress(share, left)

        if self.attack is None:
            output = clean(self.model, images, labels, seed, samples_per_prediction=self.prediction_draws, **how)
        else:
            how |= {"prediction_draws": self.prediction_draws, "progress": tell, "store": store}
            output = self.attack(self.model, images, labels, seed, **how)
        values = {key: getattr(output, key) for key in PER_EXAMPLE if key != "seconds"}
        values["seconds"] = np.full(len(rows), (time.monotonic() - begun) / len(rows))
        values["pictures"] = output.adversarial[np.isin(rows, self.shown)]
        return values


def clean(model: keras.Model, images: np.ndarray, labels: np.ndarray, seed: int, **how: Any) -> AttackOutput:
    """Images as they are, scored like an attack's, on one answer; arguments as of `inference.predict_with_votes`."""
    probabilities, votes = inference.predict_with_votes(model, images, seed, **how)
    prediction = inference.decided(votes)
    wrong = (prediction != labels).astype(np.float32)
    return AttackOutput(
        adversarial=images,
        prediction=prediction,
        probability=probabilities[np.arange(len(labels)), labels].astype(np.float32),
        success=wrong,
        wrong=wrong,
        gradients=np.zeros(len(images), np.int32),
        forwards=np.full(len(images), how.get("samples_per_prediction", 1), np.int32),
        **norms(np.zeros_like(images)),
    )
