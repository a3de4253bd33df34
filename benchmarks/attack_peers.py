"""The same attacks of CleverHans, Foolbox and ART, as `attacks.py` times them: called as their documentation shows.

CleverHans compiles its gradient itself. Foolbox and ART call the classifier eagerly; how they fare with one that is
compiled beforehand is shown as well, as a user may well do that. Every run ends with the classifier's answer to what
was found, as robust accuracy needs it and ours does.
"""

from __future__ import annotations

from collections.abc import Callable

import foolbox
import keras
import numpy as np
import tensorflow as tf
from art.attacks.evasion import HopSkipJump, PixelAttack, ProjectedGradientDescent
from art.estimators.classification import TensorFlowV2Classifier
from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

Runs = dict[str, Callable[[], object]]


def pgd(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, epsilon: float, steps: int, step_size: float
) -> Runs:
    x, y = tf.constant(images), tf.constant(labels, tf.int64)

    def cleverhans() -> object:
        found = projected_gradient_descent(
            model, x, epsilon, step_size, steps, np.inf, clip_min=0.0, clip_max=1.0, y=y, rand_init=True
        )
        return judged(model, found)

    def foolboxes(forward: Callable[..., tf.Tensor]) -> Callable[[], object]:
        wrapped = foolbox.TensorFlowModel(forward, bounds=(0.0, 1.0), device="/CPU:0")
        attack = foolbox.attacks.LinfProjectedGradientDescentAttack(abs_stepsize=step_size, steps=steps)
        wanted = foolbox.criteria.Misclassification(y)
        return lambda: judged(forward, attack.run(wrapped, x, wanted, epsilon=epsilon))

    def arts(forward: Callable[..., tf.Tensor]) -> Callable[[], object]:
        attack = ProjectedGradientDescent(
            classifier(model, forward), norm=np.inf, eps=epsilon, eps_step=step_size, max_iter=steps, num_random_init=1,
            batch_size=len(images), verbose=False,
        )  # fmt: skip
        return lambda: judged(forward, attack.generate(images, labels))

    graph = compiled(model)
    return {
        "CleverHans": cleverhans,
        "Foolbox": foolboxes(model),
        "Foolbox, compiled classifier": foolboxes(graph),
        "ART": arts(model),
        "ART, compiled classifier": arts(graph),
    }


def carlini_wagner(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, steps: int, binary_search_steps: int,
    learning_rate: float, initial_const: float, abort_early: bool,
) -> Runs:  # fmt: skip
    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=binary_search_steps, steps=steps, stepsize=learning_rate, initial_const=initial_const,
        abort_early=abort_early,
    )  # fmt: skip
    return _foolboxes(attack, model, images, labels)


def sparse(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, epsilon: float, steps: int, step_size: float,
    sparsity: float,
) -> Runs:  # fmt: skip
    attack = foolbox.attacks.SparseL1DescentAttack(
        abs_stepsize=step_size, steps=steps, quantile=1 - sparsity, random_start=True
    )
    return _foolboxes(attack, model, images, labels, epsilon=epsilon)


def deepfool(model: keras.Model, images: np.ndarray, labels: np.ndarray, steps: int, overshoot: float) -> Runs:
    attack = foolbox.attacks.L2DeepFoolAttack(steps=steps, candidates=10, overshoot=overshoot, loss="logits")
    return _foolboxes(attack, model, images, labels)


def hop_skip_jump(model: keras.Model, images: np.ndarray, labels: np.ndarray, steps: int, norm: str) -> Runs:
    art = HopSkipJump(
        classifier(model, model), norm={"l2": 2, "linf": np.inf}[norm], max_iter=steps, batch_size=1024, verbose=False
    )
    attack = foolbox.attacks.HopSkipJumpAttack(steps=steps, constraint=norm)
    return {"ART": lambda: judged(model, art.generate(images, labels)), **_foolboxes(attack, model, images, labels)}


def _foolboxes(
    attack: foolbox.Attack, model: keras.Model, images: np.ndarray, labels: np.ndarray, **budget: float
) -> Runs:
    # int64, because Foolbox's conversion of types calls a function that NumPy 2 has no more.
    x, wanted = tf.constant(images), foolbox.criteria.Misclassification(tf.constant(labels, tf.int64))
    eager = foolbox.TensorFlowModel(model, bounds=(0.0, 1.0), device="/CPU:0")
    forward = compiled(model)
    graph = foolbox.TensorFlowModel(forward, bounds=(0.0, 1.0), device="/CPU:0")
    return {
        "Foolbox": lambda: judged(model, attack.run(eager, x, wanted, **budget)),
        "Foolbox, compiled classifier": lambda: judged(forward, attack.run(graph, x, wanted, **budget)),
    }


def pixel(model: keras.Model, images: np.ndarray, labels: np.ndarray, generations: int) -> Runs:
    probabilities = keras.Sequential([model, keras.layers.Softmax()])
    attack = PixelAttack(classifier(model, probabilities), th=1, es=1, max_iter=generations)
    return {"ART": lambda: attack.generate(images, labels)}


def classifier(model: keras.Model, forward: Callable[..., tf.Tensor]) -> TensorFlowV2Classifier:
    return TensorFlowV2Classifier(
        model=forward,
        nb_classes=10,
        input_shape=model.input_shape[1:],
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=(0.0, 1.0),
    )


def judged(forward: Callable[..., tf.Tensor], found: object) -> np.ndarray:
    """What the classifier answers, at last."""
    return np.asarray(forward(tf.convert_to_tensor(found, tf.float32))).argmax(-1)


def compiled(model: keras.Model) -> Callable[..., tf.Tensor]:
    graph = tf.function(lambda x: model(x, training=False), autograph=False)
    return lambda x, training=False: graph(x)
