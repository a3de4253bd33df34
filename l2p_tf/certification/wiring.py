"""The first layers of a model, between the image and its noise, on which certificates depend."""

from __future__ import annotations

from typing import Any

import keras


def stem(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers in sequence after the image, up to the first branch or the end of the network.

    Everything after one of them depends on the image through it alone. Empty for models whose layers are not visible
    because they are not functional.
    """
    depths: dict[int, list[Any]] = getattr(model, "_nodes_by_depth", {})
    calls = [call for depth in sorted(depths, reverse=True) for call in depths[depth]]
    now = [call for call in calls if call.is_input]
    operations = []
    while len(now) == 1:
        operations.append(now[0].operation)
        now = [call for call in calls if any(parent is now[0] for parent in call.parent_nodes)]
    return operations[1:]
