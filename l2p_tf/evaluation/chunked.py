"""Runs one attack on many images, slice by slice, and keeps finished slices on disk so that work can resume."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from l2p_tf import files, inference
from l2p_tf.artifacts import atomic_write
from l2p_tf.attacks.base import Attack
from l2p_tf.attacks.context import AttackOutput
from l2p_tf.attacks.corruption import answered
from l2p_tf.attacks.projection import norms
from l2p_tf.data.view import ImageView
from l2p_tf.evaluation.options import CheckOptions, EvaluationOptions
from l2p_tf.evaluation.records import CLEAN
from l2p_tf.progress import bar
from l2p_tf.sharing import POLL_SECONDS

_CLOCK_SECONDS = 10.0
_SAME = 1e-6
_KEY = "checkpoint_key"
"""Array in each file that holds its key."""
Arrays = dict[str, np.ndarray]
PER_EXAMPLE = (
    "prediction", "probability", "success", "wrong", "l0", "l1", "l2", "linf", "gradients", "forwards", "seconds",
)  # fmt: skip
CALIBRATION = ("confidence", "brier")
EIGHT_BITS = "success_8bit"
_STORED = 6
"""Seed purpose of predictions on 8-bit images."""


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder of checkpoints, one file per key. Implements `context.CheckpointStore`."""

    path: pathlib.Path
    prefix: str = ""

    def load(self, key: str) -> Arrays | None:
        """The arrays of a key; None if there are none, or they cannot be read, which is told, and are made again."""
        file = self._file(key)
        try:
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as kept:
                arrays = {name: kept[name] for name in kept.files}
        except FileNotFoundError:
            return None
        except Exception as error:  # What reads zip files raises anything on damage.
            said = " ".join(str(error).split()) or type(error).__name__
            warnings.warn(f"{str(file)!r} is damaged ({said}); its part is done again.", UserWarning, stacklevel=2)
            return None
        # Another part's arrays under this key are not this key's.
        return arrays if str(arrays.pop(_KEY, "")) == self.prefix + key else None

    def has(self, key: str) -> bool:
        """Whether there is a file for that key, intact or damaged."""
        return self._file(key).is_file()

    def save(self, key: str, arrays: dict[str, Any]) -> None:
        """Saves the arrays atomically."""
        named = {**arrays, _KEY: np.array(self.prefix + key)}
        atomic_write(self._file(key), lambda file: np.savez(file, **named))

    def clear(self) -> None:
        """Removes every key."""
        for file in self.path.glob(f"{self.prefix}*.npz"):
            file.unlink(missing_ok=True)

    def _file(self, key: str) -> pathlib.Path:
        return self.path / f"{self.prefix}{key}.npz"


@dataclasses.dataclass(frozen=True)
class Slice:
    """Images processed together, whose results are saved as one part.

    Attributes:
      key: key of the part.
      rows: positions of the images.
      label: short description of the work.
      make: does the work. It gets a progress function, which takes the share of the work that is done and optionally
      the number of images not fooled yet, and a folder for unfinished work.
    """

    key: str
    rows: np.ndarray
    label: str
    make: Callable[[Callable[..., None], Folder], Arrays]

    def part(self, store: Folder, progress: Callable[..., None]) -> Arrays:
        """Returns the results, computed unless they are saved."""
        arrays = store.load(self.key)
        if arrays is None:
            own = Folder(store.path, f"{store.prefix}{self.key}+")
            arrays = self.make(progress, own)
            store.save(self.key, arrays)
            own.clear()
        return arrays


def slices_of(key: str, count: int, size: int, label: str, make: Callable[..., Arrays]) -> list[Slice]:
    """Divides `count` images into slices of at most `size`; `make` gets the rows first, then what `Slice` gives it."""
    return [
        Slice(f"{key}-{rows[0]:07d}", rows, label, functools.partial(make, rows))
        for rows in np.split(np.arange(count), range(size, count, size))
    ]


def share_slices(name: str, slices: Sequence[Slice], parts: pathlib.Path) -> None:
    """Processes the slices that no other live process holds; returns when all are done.

    A bar shows the current work and the number of images done by this process.

    Args:
      name: name of what is evaluated, for the bar.
      slices: the same in every process.
      parts: the folder of finished parts, also used for locks.
    """
    store, todo, here = Folder(parts), list(slices), 0
    with bar(f"{name}: shared", sum(len(piece.rows) for piece in slices), "images") as advance:
        while todo:
            busy = []
            for piece in todo:
                move = moving(advance, len(piece.rows), slice=piece.label, here=str(here))
                if not store.has(piece.key):
                    with files.locked(parts / piece.key) as acquired:
                        if not acquired:
                            busy.append(piece)
                            continue
                        if not store.has(piece.key):  # Another process may have just finished it.
                            piece.part(store, move)
                            here += len(piece.rows)
                move(1.0, here=str(here))
            if len(busy) == len(todo):
                time.sleep(POLL_SECONDS)
            todo = busy


def moving(advance: Callable[..., None], size: int, **always: str) -> Callable[..., None]:
    """Returns a progress function for one slice.

    Args:
      advance: moves the bar by a number of images, and shows facts.
      size: images of the slice.
      always: facts to show.

    Returns:
      A function of the share of the slice that is done, which never moves the bar back; it accepts further facts, and
      ignores the number of images not fooled yet.
    """
    moved = 0.0

    def move(share: float, _left: int = 0, **facts: str) -> None:
        nonlocal moved
        now = max(moved, share * size)
        advance(now - moved, **{**always, **facts})
        moved = now

    return move


@dataclasses.dataclass(frozen=True)
class ChunkedEvaluation:
    """Evaluates images under one attack, or without one.

    Attributes:
      options: seed, batches, slices and draws, as they are for the model: one draw if it has no noise.
      model: the classifier.
      attack: None for no attack.
      images: uint8 (count, height, width, channels).
      labels: int32 (count,).
      parts: folder of finished parts.
      shown: sorted positions of the images whose adversarial versions are returned; all if None.
      eight_bits: whether to count the successes that remain after rounding to 8 bits.
      keeps: adversarial images to keep: `float32` unchanged, `uint8` rounded; empty for none.
    """

    options: EvaluationOptions | CheckOptions
    model: keras.Model
    attack: Attack | None
    images: np.ndarray | ImageView
    labels: np.ndarray
    parts: pathlib.Path
    shown: np.ndarray | None = None
    eight_bits: bool = False
    keeps: str = ""

    def run(
        self,
        number: int,
        repeat: int,
        advance: Callable[..., None],
        right: np.ndarray | None = None,
        kept: np.ndarray | None = None,
    ) -> tuple[Arrays, np.ndarray]:
        """Attacks all images, or loads finished results.

        Args:
          number: number of the attack, for file names.
          repeat: number of the repeat, which seeds the draws.
          advance: moves a bar by a number of images, and shows the robust accuracy so far.
          right: bool (count,), which clean images are classified correctly; None if unknown.
          kept: receives the adversarial images to keep, (count, height, width, channels).

        Returns:
          Arrays of `PER_EXAMPLE`, with `eight_bits` also `EIGHT_BITS`, `CALIBRATION` if nothing is searched for, and
          the adversarial images of `shown`.
        """
        parts: list[Arrays] = []
        robust, done = 0.0, 0
        store = Folder(self.parts)
        for piece in self.slices(number, repeat):
            rows, move = piece.rows, moving(advance, len(piece.rows))
            # An attack detects images that are already misclassified only after a while.
            most = len(rows) if right is None else int(right[rows].sum())

            def progress(share: float, left: int, most: int = most, total: int = done + len(rows)) -> None:
                move(share, accuracy=f"{100 * (robust + min(left, most)) / total:.1f}%")  # noqa: B023

            part = piece.part(store, progress)
            if kept is not None:
                kept[rows] = part.pop("kept")
            robust += len(rows) - float((part["wrong"] >= 0.5).sum())
            done += len(rows)
            move(1.0, accuracy=f"{100 * robust / done:.1f}%")
            parts.append(part)
        keys = [*PER_EXAMPLE, *([EIGHT_BITS] if self.eight_bits else [])]
        keys += [key for key in CALIBRATION if all(key in part for part in parts)]
        joined = {key: np.concatenate([part[key] for part in parts]) for key in keys}
        return joined, np.concatenate([part["pictures"] for part in parts])

    def slices(self, number: int, repeat: int) -> list[Slice]:
        """Returns the slices of `run`, with the same arguments."""
        label = self.attack.label if self.attack else CLEAN
        make = functools.partial(self._slice, repeat)
        return slices_of(f"{number:02d}-{repeat:02d}", len(self.images), self.options.slice_size, label, make)

    def _slice(self, repeat: int, rows: np.ndarray, progress: Callable[..., None], store: Folder) -> Arrays:
        seed = int(inference.seed_pair(self.options.seed, repeat, int(rows[0]))[0])
        images, labels = inference.checked_images(self.images[rows]), self.labels[rows]
        earlier = store.load("clock")
        saved = begun = time.monotonic() - (float(earlier["seconds"]) if earlier else 0.0)

        def tell(share: float, left: int) -> None:
            nonlocal saved
            if (now := time.monotonic()) - saved > _CLOCK_SECONDS:
                store.save("clock", {"seconds": np.array(now - begun)})
                saved = now
            progress(share, left)

        draws, how = self.options.prediction_draws or 1, passes(self.options)
        if self.attack is None:
            output = answered(self.model, images, images, labels, seed, samples_per_prediction=draws, **how)
        else:
            how |= {"prediction_draws": draws, "progress": tell, "store": store}
            output = self.attack(self.model, images, labels, seed, **how)
        values = {key: getattr(output, key) for key in PER_EXAMPLE if key != "seconds"}
        values |= {key: value for key in CALIBRATION if (value := getattr(output, key)) is not None}
        values["seconds"] = np.full(len(rows), (time.monotonic() - begun) / len(rows))
        if self.eight_bits or self.keeps == "uint8":
            facts = self.attack.facts() if self.attack else {"norm": None, "epsilon": None}
            stored = in_8_bits(output.adversarial, images, facts["norm"], facts["epsilon"])
        if self.eight_bits:
            values[EIGHT_BITS] = self._still(output, stored, labels, int(inference.seed_pair(seed, _STORED)[0]))
        if self.keeps:
            values["kept"] = np.rint(255 * stored).astype(np.uint8) if self.keeps == "uint8" else output.adversarial
        values["pictures"] = output.adversarial[slice(None) if self.shown is None else np.isin(rows, self.shown)]
        return values

    def _still(self, output: AttackOutput, stored: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
        """Share of draws on which successes remain in 8 bits: float32, 0 for images that were not fooled."""
        share = np.where(output.success >= 0.5, output.success, np.float32(0))
        moved = np.abs(stored - output.adversarial).max((1, 2, 3)) > _SAME
        rows = np.flatnonzero((share > 0) & moved)
        if len(rows):
            draws = self.options.prediction_draws or 1
            votes = inference.predict_with_votes(
                self.model, stored[rows], seed, samples_per_prediction=draws, **passes(self.options)
            )[1]
            picked = votes[np.arange(len(rows)), output.target[rows]]
            share[rows] = picked if self.attack and self.attack.targeted else 1.0 - picked
        return share


def in_8_bits(adversarial: np.ndarray, images: np.ndarray, norm: str | None, epsilon: float | None) -> np.ndarray:
    """Rounds adversarial images to multiples of 1/255, within the attack's ball.

    Entries are rounded to the nearest level. If the perturbation of an image is then too large, its entries are rounded
    toward the clean image, which increases no change.

    Args:
      adversarial: float32 (count, height, width, channels) in [0, 1].
      images: the clean images, which are multiples of 1/255.
      norm: norm of the ball, a key of `norms`; None for no ball.
      epsilon: its radius; None for no limit.
    """
    nearest = np.rint(adversarial * np.float32(255)) / np.float32(255)
    if norm is None or epsilon is None:
        return nearest
    outside = norms(nearest - images)[norm] > epsilon * (1 + _SAME) + _SAME
    # Values within rounding error of a level stay there.
    levels = np.trunc((adversarial - images) * np.float32(255) * (1 + _SAME))
    inward = np.rint(images * np.float32(255) + levels) / np.float32(255)
    return np.where(outside[:, None, None, None], inward, nearest)


def answers_to(model: keras.Model, images: np.ndarray, labels: np.ndarray, seed: int, **how: Any) -> Arrays:
    """Predicts images that were made earlier, on fresh draws; arguments as in `inference.predict_with_votes`.

    Returns:
      The arrays of `PER_EXAMPLE` that depend on predictions; success is any class but the label.
    """
    probabilities, votes = inference.predict_with_votes(model, images, seed, **how)
    prediction = inference.decided(votes)
    wrong = (prediction != labels).astype(np.float32)
    probability = probabilities[np.arange(len(labels)), labels].astype(np.float32)
    return {"prediction": prediction, "probability": probability, "success": wrong, "wrong": wrong}


def passes(options: EvaluationOptions | CheckOptions) -> dict[str, Any]:
    """How images pass through a model: the arguments `batch_size` and `jit_compile` of attacks and predictions."""
    return {"batch_size": options.batch_size, "jit_compile": options.jit_compile}
