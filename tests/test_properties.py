"""What users hand over is accepted as documented, or refused in a line, whatever it is."""

import numpy as np
from absl import flags
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from l2p_tf.inference import checked_images, checked_labels
from l2p_tf.types import UserError
from stages import definitions, settings

SHAPES = arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)
DTYPES = st.sampled_from(["uint8", "int32", "int64", "float16", "float32", "float64", "bool", "complex64", "U2", "O"])
NAMES = sorted({name for names in definitions.TOPICS.values() for name in names} - {"plugins"})


def outcome(call, *arguments):
    """What a call returns, or None, and how it refuses, or an empty text."""
    try:
        return call(*arguments), ""
    except (UserError, flags.Error) as error:
        return None, str(error)


@given(arrays.arrays(DTYPES, SHAPES))
def test_any_array_becomes_images_or_is_refused(array):
    images, refusal = outcome(checked_images, array)
    if images is None:
        assert len(refusal.splitlines()) == 1
        return
    assert array.dtype.kind in "uf"
    assert images.dtype == np.float32
    assert images.shape == array.shape
    assert images.ndim == 4
    assert images.min() >= 0
    assert images.max() <= 1


@given(arrays.arrays(DTYPES, SHAPES), st.integers(0, 4), st.integers(1, 5))
def test_any_array_becomes_labels_or_is_refused(array, count, classes):
    labels, refusal = outcome(checked_labels, array, count, classes)
    if labels is None:
        assert len(refusal.splitlines()) == 1
        return
    assert labels.dtype == np.int32
    assert labels.shape == (count,)
    np.testing.assert_array_equal(labels, array)
    assert set(labels.tolist()) <= set(range(classes))


@given(st.sampled_from(NAMES), st.text(max_size=20))
def test_any_value_of_a_flag_is_read_or_refused_by_name(name, text):
    read, refusal = outcome(settings.read, [f"--{name}={text}"])
    assert read is not None or name in refusal or "Received" in refusal
