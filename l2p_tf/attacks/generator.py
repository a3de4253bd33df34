"""A trained perturbation generator as an attack: one gradient of the classifier and one pass of the generator."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any, ClassVar

import keras
import tensorflow as tf

from l2p_tf import artifacts
from l2p_tf.attacks.base import ATTACKS
from l2p_tf.attacks.context import AttackContext, State
from l2p_tf.attacks.iterative import IterativeAttack
from l2p_tf.attacks.projection import l2_norm
from l2p_tf.attacks.tanh_space import gradient_image, pushed
from l2p_tf.environment import user_path
from l2p_tf.models.saving import auxiliary_path, load_generator
from l2p_tf.options import option
from l2p_tf.types import Norm, UserError

NAME = "generator"


@ATTACKS.register(NAME)
@dataclasses.dataclass(frozen=True)
class GeneratorAttack(IterativeAttack):
    """The perturbation generator of a run trained with `--defense=generator`, on this or another classifier."""

    run: str = option("", "the run whose generator it is: its name in RUN_DIR, or its folder, in quotes")
    checkpoint: str = option("best", "the generator of the best or of the last epoch", choices=("best", "last"))
    epsilon: float | None = option(None, "l2 norm its perturbation is scaled to; None leaves it as it is", low=0)
    draws: int = option(1, "draws of the model's noise the gradient is averaged over (EOT)", low=1)

    TRACED_OPTIONS: ClassVar[tuple[str, ...]] = ("epsilon",)
    HOST_OPTIONS: ClassVar[tuple[str, ...]] = (*IterativeAttack.HOST_OPTIONS, "run", "checkpoint")

    @property
    def norm(self) -> Norm | None:
        """l2 if the perturbation is scaled; None if its size is left to the generator."""
        return None if self.epsilon is None else Norm.L2

    @property
    def label(self) -> str:
        """Label such as `Generator of pgd` or `Generator of pgd l2 0.5 EOT-10`."""
        parts = [f"Generator of {self.recorded().run}"]
        parts += [self.checkpoint] if self.checkpoint != "best" else []
        parts += [] if self.epsilon is None else [f"l2 {self.epsilon:.4g}"]
        parts += [f"EOT-{self.draws}"] if self.draws > 1 else []
        return " ".join(parts)

    @property
    def folder(self) -> pathlib.Path:
        """Folder of the training: `run` itself, or its subfolder `train`."""
        folder = user_path(self.run)
        return folder / "train" if (folder / "train").is_dir() else folder

    def recorded(self) -> GeneratorAttack:
        """Replaces the folder by the name of the run; the fingerprint identifies the training."""
        folder = self.folder.absolute()
        return self.replace(run=(folder.parent if folder.name == "train" else folder).name) if self.run else self

    def inputs(self) -> dict[str, artifacts.Artifact]:
        """The training artifact of the generator."""
        trained = self._trained()
        return {f"{NAME}:{self.recorded().run} {trained.fingerprint[:8]}": trained}

    @property
    def graph_key(self) -> tuple[Any, ...]:
        """Includes the file, because the compiled attack holds the generator."""
        return (*super().graph_key, self.epsilon is None, *self._file())

    def numbers(self) -> dict[str, float]:
        """Epsilon, if given."""
        return {} if self.epsilon is None else {"epsilon": self.epsilon}

    def check(self, model: keras.Model) -> None:
        """Raises UserError if there is no such generator, or it is for other images or classes."""
        super().check(model)
        shapes = tuple(tensor.shape[1:] for tensor in self._network().inputs[1:])
        wanted = (model.input_shape[1:], model.output_shape[1:])
        if shapes != wanted:
            raise UserError(
                f"The generator of {self.run!r} should be for images and classes {wanted}. Received: {shapes}"
            )

    def cost(self, draws: int, classes: int) -> tuple[int, int]:
        """One gradient per draw; the generator's own pass is not counted."""
        del classes
        return draws, draws

    def begin(self, context: AttackContext) -> State:
        """Starts at the image."""
        return {"adversarial": context.images}

    def step(self, context: AttackContext, i: tf.Tensor, state: State) -> State:
        """Takes the only step."""
        del i
        options = self._trained().options["defense_options"]
        images, labels = context.images, context.criterion.labels
        gradient = gradient_image(context.model, images, labels, options["gradient"], context.draws(self.draws))
        one_hot = tf.one_hot(labels, int(context.model.output_shape[-1]))
        push = self._network()([gradient, images, one_hot], training=False)
        adversarial = pushed(images, push, options["margin"])
        if self.epsilon is not None:
            away = adversarial - images
            adversarial = tf.clip_by_value(
                images + context.numbers["epsilon"] * tf.math.divide_no_nan(away, l2_norm(away)), 0.0, 1.0
            )
        return {**state, "adversarial": adversarial}

    def _trained(self) -> artifacts.Artifact:
        if not self.run:
            raise UserError("generator: `run` should name a run trained with --defense=generator. Received: ''")
        trained = artifacts.read(self.folder, "train", verify=False)
        kind = str(trained.options.get("defense", "")).split("(")[0]
        if kind != NAME:
            raise UserError(f"generator: `run` should be trained with --defense=generator. Received: {kind!r}")
        return trained

    def _file(self) -> tuple[pathlib.Path, int]:
        path = auxiliary_path(self._trained().path / f"{self.checkpoint}.keras", NAME)
        return path, path.stat().st_mtime_ns if path.exists() else 0

    def _network(self) -> keras.Model:
        return _opened(*self._file())


@functools.lru_cache(maxsize=4)
def _opened(path: pathlib.Path, changed: int) -> keras.Model:
    del changed
    return load_generator(path)
