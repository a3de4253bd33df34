"""Model architectures, one per file. They depend on a layer factory, never on a defense."""

from l2p_tf.models.base import MODELS, Architecture

__all__ = ["MODELS", "Architecture"]
