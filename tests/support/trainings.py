"""Trainings of small networks for few epochs."""

import numpy as np

from l2p_tf import artifacts
from l2p_tf.attacks import ATTACKS
from l2p_tf.data import DATASETS, ImageData, prepare
from l2p_tf.defenses import DEFENSES
from l2p_tf.fitting.options import TrainOptions
from l2p_tf.models.saving import load_classifier, save_classifier
from support.models import Tiny, linear


def digits(folder, **limits):
    """The digits as the data stage leaves them in a folder."""
    prepare(DATASETS.parse("digits"), folder, **limits)
    return ImageData.open(folder)


def nearest_mean(data, noise=None):
    """A linear classifier that takes each image to the nearest mean of a class; `noise` is as in `linear`."""
    _, images, labels = data.sample("train")
    means = np.stack([images[labels == c].mean(0) / 255 for c in range(data.info.num_classes)], -1)
    return linear(2 * means, -np.square(means.reshape(-1, means.shape[-1])).sum(0), noise=noise)


def trained(folder, model, data):
    """A classifier as a training on these data leaves it in a folder."""
    with artifacts.produce(folder, "train", {"name": "run"}, {"data": data.artifact}) as work:
        save_classifier(model, work.path / "best.keras")
    return artifacts.read(folder)


def options(defense="none", **changes):
    """Those of a short training of a small network."""
    values = {
        "name": "run",
        "model": Tiny(),
        "defense": DEFENSES.parse(defense) if isinstance(defense, str) else defense,
        "validation_attack": ATTACKS.parse("fgsm(epsilon=0.1)"),
        "epochs": 3,
        "batch_size": 64,
        "drops": (2,),
    }
    return TrainOptions(**(values | changes))


def weights(path):
    """The weights of a saved classifier."""
    return [np.array(w) for w in load_classifier(path).weights]
