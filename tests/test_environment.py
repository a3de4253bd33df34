"""What the surroundings say: the backend of Keras, oneDNN, the console's encoding."""

import os
import re
import sys

import pytest

from l2p_tf import environment
from l2p_tf.types import UserError
from support import ROOT
from support.stages import python


def test_onednn_and_the_backend_are_chosen_where_the_user_has_not():
    told = (
        "import os, sys, l2p_tf; "
        "print(os.environ['TF_ENABLE_ONEDNN_OPTS'], os.environ['KERAS_BACKEND'], 'keras' in sys.modules)"
    )
    assert python(told, TF_ENABLE_ONEDNN_OPTS=None, KERAS_BACKEND=None).stdout.split() == ["1", "tensorflow", "False"]
    assert python(told, TF_ENABLE_ONEDNN_OPTS="0", KERAS_BACKEND="jax").stdout.split() == ["0", "jax", "False"]


@pytest.mark.parametrize("module", ["l2p_tf.data", "l2p_tf.certification.records", "l2p_tf.evaluation.records"])
def test_what_needs_no_tensorflow_does_not_import_it(module):
    python(f"import sys, {module}; assert not {{'tensorflow', 'keras'}} & set(sys.modules)")


def test_another_backend_is_refused(monkeypatch):
    environment.check_backend()
    import keras

    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(UserError, match=r"`KERAS_BACKEND` should be tensorflow, .* Received: 'torch'"):
        environment.check_backend()


def test_paths_begin_at_home_and_can_be_none_the_system_has_not(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert str(environment.user_path("~/runs")) == "/home/me/runs"
    for path in ("runs\0", "~nobody-of-this-name/runs"):
        with pytest.raises(UserError, match="A path .*should"):
            environment.user_path(path)


def test_a_benchmark_says_what_it_ran_on(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import machine

    monkeypatch.setattr(machine, "onednn", lambda: True)
    assert re.fullmatch(rf".+, {os.cpu_count()} cores, oneDNN on", machine.described())
    monkeypatch.setattr(machine, "onednn", lambda: False)
    assert machine.described().endswith("oneDNN off")


@pytest.mark.parametrize(("loaded", "on", "lines"), [(True, False, 1), (True, True, 0), (False, None, 0)])
def test_one_line_says_that_tensorflow_was_loaded_without_onednn(monkeypatch, caplog, loaded, on, lines):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if loaded:
        monkeypatch.setitem(sys.modules, "tensorflow", sys)
    else:
        monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(environment, "onednn", lambda: on)
    environment.prepare()
    assert len(caplog.messages) == lines
    assert os.environ.get("TF_ENABLE_ONEDNN_OPTS") == (None if loaded else "1")


@pytest.mark.slow
def test_keras_and_tensorflow_start_as_chosen_and_saved_classifiers_load(tmp_path):
    """In as few processes as there are orders of imports, since each waits for TensorFlow."""
    (tmp_path / "keras.json").write_text('{"backend": "numpy"}')
    file = str(tmp_path / "saved.keras")
    first = (
        "import l2p_tf; from l2p_tf import environment as e; before = e.onednn();"
        "import keras, tensorflow; print(before, e.onednn(), keras.backend.backend());"
        "from l2p_tf.layers.image import ChannelNormalization as N; x = keras.Input((4, 4, 1));"
        f"keras.Model(x, keras.layers.Flatten()(N((0.0,), (1.0,))(x))).save({file!r})"
    )
    done = python(first, TF_ENABLE_ONEDNN_OPTS="0", KERAS_BACKEND=None, KERAS_HOME=str(tmp_path))
    assert done.stdout.split() == ["None", "False", "tensorflow"], done.stderr
    second = (
        "import keras\n"
        f"try: keras.models.load_model({file!r})\n"
        "except TypeError as error: print('l2p_tf.layers' in str(error))\n"
        f"import l2p_tf; keras.models.load_model({file!r}); print(l2p_tf.environment.onednn())"
    )
    assert python(second, TF_ENABLE_ONEDNN_OPTS="1").stdout.split() == ["True", "True"]
