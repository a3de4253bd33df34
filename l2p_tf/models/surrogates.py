"""Networks with surrogate gradients for some of their steps (BPDA)."""

from __future__ import annotations

import collections
import fnmatch
from typing import Any

import keras

from l2p_tf.layers.networks import is_network, operations_of
from l2p_tf.layers.saved_model import SavedModelLayer
from l2p_tf.layers.surrogate import SURROGATES, SurrogateGradient
from l2p_tf.models.injection import names_of, rebuilt
from l2p_tf.types import UserError

_IN_A_GRAPH = (
    ". A model with code of its own is kept as one TensorFlow graph: call `with_surrogates` of "
    "`l2p_tf.models.surrogates` on it before."
)


def with_surrogates(model: keras.Model, steps: str) -> keras.Model:
    """Gives steps of a network the gradients of smooth functions, with unchanged outputs.

    The new network shares layers, and so weights, with the original.

    Args:
      model: a functional or Sequential classifier, which may be nested.
      steps: patterns of names of layers and operations, each with one of `SURROGATES`, such as `round*: identity; jpeg:
      identity`; the first match counts. If empty, the model is returned unchanged.

    Raises:
      UserError: the text is invalid, a pattern matches nothing, or the shape or type of a step does not permit a
      gradient.
    """
    wanted = parse_steps(steps)
    if not wanted:
        return model
    if not is_network(model):
        raise UserError("`bpda` needs a functional or Sequential model, whose layers can be told. Received: another")
    operations = list(operations_of(model))
    for pattern, _ in wanted:
        if not any(fnmatch.fnmatchcase(candidate.name, pattern) for candidate in operations):
            graph = any(isinstance(candidate, SavedModelLayer) for candidate in operations)
            raise UserError(
                f"`bpda` should fit the name of a layer, of {names_of(operations)}. Received: {pattern!r}"
                + _IN_A_GRAPH * graph
            )
    used: collections.Counter[str] = collections.Counter()

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        answer = operation(*args, **kwargs)
        name = operation.name
        surrogate = next((smooth for pattern, smooth in wanted if fnmatch.fnmatchcase(name, pattern)), None)
        if surrogate is None:
            return answer
        given = [x for x in keras.tree.flatten((args, kwargs)) if keras.utils.is_keras_tensor(x)]
        shapes = [tuple(x.shape) for x in given]
        if shapes != [getattr(answer, "shape", None)] or "float" not in keras.backend.standardize_dtype(answer.dtype):
            became = f"{answer.dtype} {tuple(answer.shape)}" if hasattr(answer, "shape") else "several tensors"
            raise UserError(
                "`bpda` should name steps that answer numbers of the shape of the one tensor that they take. "
                f"{name!r} makes {became} of {', '.join(map(str, shapes))}"
            )
        used[name] += 1
        return SurrogateGradient(surrogate, name=f"{name}_{surrogate}_{used[name]}")([answer, *given])

    return rebuilt(model, call)


def parse_steps(text: str) -> list[tuple[str, str]]:
    """Parses patterns and their surrogates, such as `round*: identity; jpeg: identity`.

    Raises:
      UserError: the text is invalid, or names an unknown surrogate.
    """
    pairs = []
    for part in filter(None, map(str.strip, text.split(";"))):
        pattern, colon, surrogate = (each.strip() for each in part.rpartition(":"))
        if not (pattern and colon) or surrogate not in SURROGATES:
            raise UserError(
                f"`bpda` should be names of layers with {' or '.join(SURROGATES)}, as 'round*: identity; jpeg: "
                f"identity'. Received: {part!r}"
            )
        pairs.append((pattern, surrogate))
    return pairs
