"""Trainings of small networks for few epochs."""

import numpy as np

from l2p_tf.attacks import ATTACKS
from l2p_tf.defenses import DEFENSES
from l2p_tf.fitting.run import TrainOptions
from l2p_tf.models import MODELS
from l2p_tf.models.saving import load_classifier


def options(defense="none", **changes):
    values = {
        "name": "run",
        "model": MODELS.parse("resnet_v1(depth=8, width=0.25)"),
        "defense": DEFENSES.parse(defense) if isinstance(defense, str) else defense,
        "validation_attack": ATTACKS.parse("pgd(epsilon=0.1, steps=2)"),
        "epochs": 3,
        "batch_size": 64,
        "drops": (2,),
    }
    return TrainOptions(**(values | changes))


def weights(path):
    return [np.array(w) for w in load_classifier(path).weights]
