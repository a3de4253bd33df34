"""Architectures, one a file: they know a layer factory, never a defense."""

from l2p_tf.models.base import MODELS, Architecture

__all__ = ["MODELS", "Architecture"]
