"""How a model begins: what lies between the image and its noise decides what the noise is worth."""

from __future__ import annotations

from typing import Any

import keras


def stem(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers that the image goes through one after the other, up to where the network first branches or ends.

    Everything behind one of them sees the image through it alone. A model whose layers cannot be seen, because it is
    not a functional one, has none.
    """
    depths: dict[int, list[Any]] = getattr(model, "_nodes_by_depth", {})
    calls = [call for depth in sorted(depths, reverse=True) for call in depths[depth]]
    now = [call for call in calls if call.is_input]
    operations = []
    while len(now) == 1:
        operations.append(now[0].operation)
        now = [call for call in calls if any(parent is now[0] for parent in call.parent_nodes)]
    return operations[1:]
