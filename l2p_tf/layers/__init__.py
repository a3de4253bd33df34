"""Keras layers: noise on activations, convolutions with batch norm, input normalization, and the layer factory.

Importing the package registers every layer with Keras, so that `keras.models.load_model` can load saved classifiers.
"""

import importlib
import pkgutil

from l2p_tf.environment import check_backend

check_backend()
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
