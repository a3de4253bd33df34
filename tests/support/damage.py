"""Ways in which a file is damaged, or made by somebody who means harm; for hypothesis."""

import json

from hypothesis import strategies as st

JSON = (
    st.none() | st.booleans() | st.integers() | st.sampled_from([-1, 2**31 - 1, 2**70, -0.5, 1e300])
    | st.floats(allow_nan=False) | st.text(max_size=3) | st.sampled_from([[], {}, [[]], {"a": 1}])
)  # fmt: skip


def in_json(draw, text):
    """JSON as bytes with a bit flipped, cut, replaced, or with a key deleted or retyped anywhere in it."""
    how = draw(st.sampled_from(["flip", "cut", "delete", "retype", "replace"]))
    if how == "replace":
        return json.dumps(draw(JSON)).encode()
    if how in ("flip", "cut"):
        return in_bytes(draw, text, how)
    content = json.loads(text)
    place = content
    while True:
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or draw(st.integers(0, 3)) == 0:
            break
        place = place[key]
    if how == "delete":
        del place[key]
    else:
        place[key] = draw(JSON)
    return json.dumps(content).encode()


def in_bytes(draw, content, how="flip"):
    """Bytes with one bit flipped, or cut."""
    at = draw(st.integers(0, len(content) - 1))
    if how == "cut":
        return content[:at]
    return content[:at] + bytes([content[at] ^ 1 << draw(st.integers(0, 7))]) + content[at + 1 :]
