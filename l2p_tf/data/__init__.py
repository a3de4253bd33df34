"""Data sets behind one interface, the data artifact, and the training pipeline.

`DATASETS.parse("cifar10")` selects a data set, `prepare` writes it as an artifact, `ImageData.open` reads that
artifact, and `TrainBatches` feeds training from it.
"""

from l2p_tf.data.base import DATASETS, Dataset, Source, Split, stratified
from l2p_tf.data.pipeline import TrainBatches
from l2p_tf.data.preparing import prepare
from l2p_tf.data.store import DataInfo, ImageData
from l2p_tf.data.view import ImageView

__all__ = [
    "DATASETS",
    "DataInfo",
    "Dataset",
    "ImageData",
    "ImageView",
    "Source",
    "Split",
    "TrainBatches",
    "prepare",
    "stratified",
]
