"""One attack on many images, slice by slice; what is done is kept on disk, so that it is not done again."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
import zipfile
import zlib
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
from l2p_tf.evaluation.options import EvaluationOptions
from l2p_tf.evaluation.records import CLEAN
from l2p_tf.sharing import POLL_SECONDS

_CLOCK_SECONDS = 10.0
_SAME = 1e-6
_KEY = "checkpoint_key"
"""The array in a file that says whose it is."""
Arrays = dict[str, np.ndarray]
PER_EXAMPLE = (
    "prediction", "probability", "success", "wrong", "l0", "l1", "l2", "linf", "gradients", "forwards", "seconds",
)  # fmt: skip
CALIBRATION = ("confidence", "brier")
EIGHT_BITS = "success_8bit"
_STORED = 6
"""What seeds the answers to images in 8 bits."""


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

    def has(self, key: str) -> bool:
        """Whether there is a file of that key, whole or damaged."""
        return self._file(key).is_file()

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
class Slice:
    """Images that are worked on together; what comes of them is kept as one part.

    Attributes:
      key: of the part.
      rows: positions of the images.
      label: what is done with them, in a few words.
      make: does it: called with a function that is told the share of the work that is done, and perhaps how many images
        are not fooled yet, and with a folder for what is not finished.
    """

    key: str
    rows: np.ndarray
    label: str
    make: Callable[[Callable[..., None], Folder], Arrays]

    def part(self, store: Folder, progress: Callable[..., None]) -> Arrays:
        """What comes of it; not made again where it is kept."""
        found = store.load(self.key)
        if found is None:
            own = Folder(store.path, f"{store.prefix}{self.key}+")
            found = self.make(progress, own)
            store.save(self.key, found)
            own.clear()
        return found


def share_slices(slices: Sequence[Slice], parts: pathlib.Path, advance: Callable[..., None]) -> None:
    """Does the slices that no other process does, and those of a process that has died; returns when all are done.

    Args:
      slices: the same in every process.
      parts: the folder that keeps what is done, and where each process locks what it does.
      advance: moves a bar by a number of images, and shows what is being done, and on how many images it was done here.
    """
    store, todo, here = Folder(parts), list(slices), 0
    while todo:
        busy = []
        for piece in todo:
            move = moving(advance, len(piece.rows), slice=piece.label, here=str(here))
            if not store.has(piece.key):
                with files.locked(parts / piece.key) as mine:
                    if not mine:
                        busy.append(piece)
                        continue
                    if not store.has(piece.key):  # Else another has just done it.
                        piece.part(store, move)
                        here += len(piece.rows)
            move(1.0, here=str(here))
        if len(busy) == len(todo):
            time.sleep(POLL_SECONDS)
        todo = busy


def moving(advance: Callable[..., None], size: int, **always: str) -> Callable[..., None]:
    """Moves a bar within a slice.

    Args:
      advance: moves it by a number of images, and shows facts.
      size: images of the slice.
      always: facts to show.

    Returns:
      A function of the share of the slice that is done, which never moves the bar back; it may be told further facts,
      or how many images are not fooled yet, which it leaves alone.
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
      eight_bits: whether it is told how many successes are left in 8 bits, as images are stored.
      keeps: adversarial images that are kept: `float32` as they are, `uint8` in 8 bits; empty for none.
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
    eight_bits: bool = False
    keeps: str = ""

    @classmethod
    def of(
        cls, options: EvaluationOptions, model: keras.Model, attack: Attack | None, images: np.ndarray | ImageView,
        labels: np.ndarray, shown: np.ndarray, parts: pathlib.Path, eight_bits: bool = False, keeps: str = "",
    ) -> ChunkedEvaluation:  # fmt: skip
        """One attack on these images, as the options have it."""
        return cls(
            model, attack, images, labels, shown, parts, options.seed, options.batch_size, options.slice_size,
            options.jit_compile, options.prediction_draws or 1, eight_bits, keeps,
        )  # fmt: skip

    def run(
        self,
        number: int,
        repeat: int,
        advance: Callable[..., None],
        right: np.ndarray | None = None,
        kept: np.ndarray | None = None,
    ) -> tuple[Arrays, np.ndarray]:
        """Attacks all images, or finds them done.

        Args:
          number: of the attack, for the names of what is kept.
          repeat: of the evaluation; decides the draws.
          advance: moves a bar by a number of images, and shows the robust accuracy so far.
          right: bool (count,), which images are classified correctly as they are; None where that is not known.
          kept: takes the adversarial images in the form that is kept, (count, height, width, channels).

        Returns:
          Arrays of `PER_EXAMPLE`, with `eight_bits` also `EIGHT_BITS`, `CALIBRATION` where nothing is searched for, and
          the adversarial images of `shown`.
        """
        found: list[Arrays] = []
        robust, done = 0.0, 0
        store = Folder(self.parts)
        for piece in self.slices(number, repeat):
            rows, move = piece.rows, moving(advance, len(piece.rows))
            # An attack only finds out in time what is misclassified already.
            most = len(rows) if right is None else int(right[rows].sum())

            def progress(share: float, left: int, most: int = most, total: int = done + len(rows)) -> None:
                move(share, accuracy=f"{100 * (robust + min(left, most)) / total:.1f}%")  # noqa: B023

            part = piece.part(store, progress)
            if kept is not None:
                kept[rows] = part.pop("kept")
            robust += len(rows) - float((part["wrong"] >= 0.5).sum())
            done += len(rows)
            move(1.0, accuracy=f"{100 * robust / done:.1f}%")
            found.append(part)
        keys = [*PER_EXAMPLE, *([EIGHT_BITS] if self.eight_bits else [])]
        keys += [key for key in CALIBRATION if all(key in part for part in found)]
        joined = {key: np.concatenate([part[key] for part in found]) for key in keys}
        return joined, np.concatenate([part["pictures"] for part in found])

    def slices(self, number: int, repeat: int) -> list[Slice]:
        """The slices of `run`; arguments as there."""
        label = self.attack.label if self.attack else CLEAN
        starts = range(self.slice_size, len(self.images), self.slice_size)
        return [
            Slice(f"{number:02d}-{repeat:02d}-{rows[0]:07d}", rows, label, functools.partial(self._slice, rows, repeat))
            for rows in np.split(np.arange(len(self.images)), starts)
        ]

    def _slice(self, rows: np.ndarray, repeat: int, progress: Callable[..., None], store: Folder) -> Arrays:
        seed = int(inference.seed_pair(self.seed, repeat, int(rows[0]))[0])
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
        values |= {key: value for key in CALIBRATION if (value := getattr(output, key)) is not None}
        values["seconds"] = np.full(len(rows), (time.monotonic() - begun) / len(rows))
        if self.eight_bits or self.keeps == "uint8":
            facts = self.attack.facts() if self.attack else {"norm": None, "epsilon": None}
            stored = in_8_bits(output.adversarial, images, facts["norm"], facts["epsilon"])
        if self.eight_bits:
            values[EIGHT_BITS] = self._still(output, stored, labels, int(inference.seed_pair(seed, _STORED)[0]))
        if self.keeps:
            values["kept"] = np.rint(255 * stored).astype(np.uint8) if self.keeps == "uint8" else output.adversarial
        values["pictures"] = output.adversarial[np.isin(rows, self.shown)]
        return values

    def _still(self, output: AttackOutput, stored: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
        """The share of draws on which what succeeds still does in 8 bits: float32, 0 for what did not succeed."""
        share = np.where(output.success >= 0.5, output.success, np.float32(0))
        moved = np.abs(stored - output.adversarial).max((1, 2, 3)) > _SAME
        rows = np.flatnonzero((share > 0) & moved)
        if len(rows):
            how: dict[str, Any] = {"batch_size": self.batch_size, "jit_compile": self.jit_compile}
            votes = inference.predict_with_votes(
                self.model, stored[rows], seed, samples_per_prediction=self.prediction_draws, **how
            )[1]
            picked = votes[np.arange(len(rows)), output.target[rows]]
            share[rows] = picked if self.attack and self.attack.targeted else 1.0 - picked
        return share


def in_8_bits(adversarial: np.ndarray, images: np.ndarray, norm: str | None, epsilon: float | None) -> np.ndarray:
    """Adversarial images as they can be stored: each number a multiple of 1/255, within the attack's ball.

    Numbers are rounded to the nearest; where the perturbation is then too large, those of that image toward the clean
    one, which makes no change larger.

    Args:
      adversarial: float32 (count, height, width, channels) in [0, 1].
      images: the clean ones, which are stored images.
      norm: of the ball, a key of `norms`; None for no ball.
      epsilon: its radius; None for no limit.
    """
    nearest = np.rint(adversarial * np.float32(255)) / np.float32(255)
    if norm is None or epsilon is None:
        return nearest
    outside = norms(nearest - images)[norm] > epsilon * (1 + _SAME) + _SAME
    # What lies on a multiple but for its last bit stays there.
    whole = np.trunc((adversarial - images) * np.float32(255) * (1 + _SAME))
    inward = np.rint(images * np.float32(255) + whole) / np.float32(255)
    return np.where(outside[:, None, None, None], inward, nearest)


def clean(model: keras.Model, images: np.ndarray, labels: np.ndarray, seed: int, **how: Any) -> AttackOutput:
    """Images as they are, scored like an attack's, on one answer; arguments as of `inference.predict_with_votes`."""
    return answered(model, images, images, labels, seed, **how)
