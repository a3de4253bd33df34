"""Our attacks, with the same names and options, as implemented by CleverHans 4, for cross-checks."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from l2p_tf import inference
from l2p_tf.attacks.ascent import Ascent
from l2p_tf.attacks.base import AttackRunner
from l2p_tf.attacks.bim import BIM
from l2p_tf.attacks.carlini_wagner import CarliniWagner
from l2p_tf.attacks.deepfool import DeepFool
from l2p_tf.attacks.fgsm import FGSM
from l2p_tf.attacks.gradient import answer
from l2p_tf.attacks.mim import MIM
from l2p_tf.attacks.pgd import PGD
from l2p_tf.attacks.spsa import SPSA
from l2p_tf.classifier import computes_in_float16
from l2p_tf.evaluation.reimplemented import Reimplemented
from l2p_tf.layers.noise import reseed, restore_seeds
from l2p_tf.types import Norm

_REASONS = {
    CarliniWagner: "its C&W does not run on Keras 3 (it calls the list of the optimizer's variables)",
    SPSA: "its SPSA does not run on Keras 3 (its optimizer is given `lr`)",
    DeepFool: "its version for TensorFlow 2 has no DeepFool",
}


@dataclasses.dataclass(frozen=True)
class CleverHans(Reimplemented):
    """FGSM, BIM, PGD or MIM as run by CleverHans: eagerly, and all steps for every example.

    Restarts, targets and scoring work as for every attack. PGD's random starts follow TensorFlow's global seed, which
    is set before each batch.

    Attributes:
      attack: the attack; its options keep their meaning.

    Raises:
      UserError: CleverHans does not support it; the message says why.
    """

    attack: Ascent

    BACKEND: ClassVar[str] = "cleverhans"

    def __post_init__(self) -> None:
        attack = self.attack
        if not isinstance(attack, FGSM | BIM | PGD | MIM):
            why = next((text for kind, text in _REASONS.items() if isinstance(attack, kind)), "it has no such attack")
            raise self.refused(why)
        if attack.loss != "ce":
            raise self.refused(f"it is run with its cross-entropy here, not `loss={attack.loss}`")
        if attack.norm is Norm.L1:
            raise self.refused("it has no projection in l1")
        self.check_draws()
        if isinstance(attack, FGSM) and attack.random_start:
            raise self.refused("its FGSM starts at the image")
        if attack.numbers().get("step_size", 0.0) > attack.epsilon:
            raise self.refused("it takes no steps longer than epsilon")

    def attempt(self, runner: AttackRunner, number: int, start: int, rows: np.ndarray) -> np.ndarray:
        """Runs one start, in full batches."""
        model, attack = runner.model, self.attack
        # One function per model, because CleverHans traces its gradient again for every new one.
        half = computes_in_float16(model)
        asked = functools.partial(answer, model) if half else functools.partial(model, training=False)
        asked = vars(model).setdefault("_l2p_answer", asked)
        adversarial = np.empty((len(rows), *runner.images.shape[1:]), np.float32)
        for batch, (index, real) in enumerate(inference.batches(len(rows), runner.batch_size)):
            pair = inference.seed_pair(runner.seed, number + 1, start + 1, batch + 1)
            tf.random.set_seed(int(abs(int(pair[0]))))
            former = reseed(model, tf.constant(pair))
            x = tf.constant(runner.images[rows[index]])
            y = tf.constant((runner.targets if attack.targeted else runner.labels)[rows[index]])
            adversarial[index[:real]] = self._run(asked, x, y).numpy()[:real]
            restore_seeds(model, former)
        passes = attack.iterations
        runner.gradients[rows] += passes
        runner.forwards[rows] += passes
        return adversarial

    def _run(self, asked: Any, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        # Imported here, because it is slow and rarely needed.
        from cleverhans.tf2.attacks import fast_gradient_method as fgm
        from cleverhans.tf2.attacks import momentum_iterative_method as mim
        from cleverhans.tf2.attacks import projected_gradient_descent as pgd

        attack = self.attack
        norm = np.inf if attack.norm is Norm.LINF else 2
        common: dict[str, Any] = {"clip_min": 0.0, "clip_max": 1.0, "y": y, "targeted": attack.targeted}
        if isinstance(attack, FGSM):
            adversarial = fgm.fast_gradient_method(asked, x, attack.epsilon, norm, **common)
        else:
            numbers = attack.numbers()
            how = {"eps": attack.epsilon, "eps_iter": numbers["step_size"], "nb_iter": attack.iterations, "norm": norm}
            if isinstance(attack, MIM):
                adversarial = mim.momentum_iterative_method(asked, x, **how, **common, decay_factor=attack.decay)
            else:
                random = isinstance(attack, PGD) and attack.random_start
                adversarial = pgd.projected_gradient_descent(asked, x, **how, **common, rand_init=random)
        # Its sums can exceed the range by rounding.
        return tf.clip_by_value(adversarial, 0.0, 1.0)
