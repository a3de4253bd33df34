"""Attacks, by name, on one device and on two replicas; prints, as JSON, how far they agree. A program of the tests."""

import json
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from support.models import images_and_labels, quick, smooth  # noqa: E402


def main() -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    one = smooth()
    with strategy.scope():
        two, noisy = smooth(), smooth(noise=0.3)
    images, labels = images_and_labels(13)
    found = {}
    for name in sys.argv[1:]:
        attack = quick(name)
        alone, shared = (attack(model, images, labels, seed=5, batch_size=8) for model in (one, two))
        # Sixteen times one image: with noise of their own, replicas answer differently.
        same = attack(noisy, np.repeat(images[:1], 16, 0), np.repeat(labels[:1], 16), seed=5, batch_size=16)
        halves = same.adversarial[:8], same.adversarial[8:]
        found[name] = (
            float(np.mean(alone.success == shared.success)),
            float(np.abs(alone.adversarial - shared.adversarial).max()),
            name == "noise" or not np.array_equal(*halves) or np.allclose(same.adversarial, images[0], atol=1e-5),
        )
        print(name, found[name], file=sys.stderr)
    print(json.dumps(found))
