"""An export as used by a server: signatures, validation of requests, and outputs."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from l2p_tf.environment import user_path
from l2p_tf.inference import ROUNDING
from l2p_tf.layers.saved_model import load
from l2p_tf.serving import CARD, CERTIFY, SAVED_MODEL, SEEDED
from l2p_tf.types import UserError

DEFAULT = "serving_default"


class BadRequestError(Exception):
    """A request that cannot be answered; the message says why."""


class Model:
    """An exported classifier.

    Args:
      export: its folder, with `saved_model` and `serving.json`.
      seeded: whether requests may choose the seed of the noise.

    Raises:
      UserError: the folder holds no export of this toolkit, or a damaged one.
    """

    def __init__(self, export: str | pathlib.Path, seeded: bool = False) -> None:
        self.folder = user_path(export)
        try:
            card = json.loads((self.folder / CARD).read_bytes())
            self.card: dict[str, Any] = card
            inputs = {name: signature["images"] for name, signature in card["signatures"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"`--export` should be the folder of an export, with {CARD}. Received: {str(self.folder)!r}"
            ) from error
        loaded = load(self.folder / SAVED_MODEL)
        self.signatures = {
            name: loaded.signatures[name] for name in inputs if name in loaded.signatures and (seeded or name != SEEDED)
        }
        self._loaded = loaded  # Signatures do not keep a reference to it.
        self.shape = tuple(inputs[DEFAULT]["shape"][1:])

    def images_of(self, signature: str, values: Any) -> np.ndarray:
        """Converts the images of a request to a signature's input.

        Raises:
          BadRequestError: they do not fit the model.
        """
        if signature not in self.signatures:
            raise BadRequestError(f"signature_name should be one of {', '.join(self.signatures)}")
        takes_bytes = self.signatures[signature].structured_input_signature[1]["images"].dtype == tf.uint8
        try:
            numbers = np.asarray(values, np.float32)
        except (TypeError, ValueError) as error:
            raise BadRequestError("images should be lists of numbers of equal lengths") from error
        if numbers.shape[1:] != self.shape or not len(numbers):
            wanted = "x".join(map(str, self.shape))
            raise BadRequestError(f"images should be of shape (count, {wanted}), not {numbers.shape}")
        low, high, slack = (0, 255, 0.0) if takes_bytes else (0, 1, ROUNDING)
        if not (np.isfinite(numbers).all() and numbers.min() >= low - slack and numbers.max() <= high + slack):
            raise BadRequestError(f"numbers should be finite and from {low} to {high}")
        if takes_bytes and (numbers % 1).any():
            raise BadRequestError("numbers should be whole, from 0 to 255")
        return numbers.astype(np.uint8) if takes_bytes else numbers

    def ask(self, signature: str, images: np.ndarray, **more: Any) -> dict[str, np.ndarray]:
        """Returns the outputs of a signature by name, arrays (count, ...)."""
        # Padded to sizes used before, because TensorFlow is slow on the first call of each new size.
        count, size = len(images), _size(len(images))
        padded = np.concatenate([images, np.repeat(images[-1:], size - count, 0)]) if size > count else images
        outputs = self.signatures[signature](images=tf.constant(padded), **more)
        return {name: value.numpy()[:count] for name, value in outputs.items()}

    def warm_up(self, images: int) -> None:
        """Runs signatures on batches of all sizes up to `images`, so that no request pays for first calls.

        Certificates are left out: thousands of draws an image would keep the server from starting.
        """
        for name, signature in self.signatures.items():
            if name == CERTIFY:
                continue
            dtype = signature.structured_input_signature[1]["images"].dtype.as_numpy_dtype
            more = {"seed": tf.constant([0, 0], tf.int64)} if name == SEEDED else {}
            for power in range(_size(images).bit_length()):
                self.ask(name, np.zeros((2**power, *self.shape), dtype), **more)


def _size(images: int) -> int:
    """Rounds the number of images up to a power of two."""
    return int(2 ** (images - 1).bit_length())
