"""Settings every test shares."""

import gc
import os
import signal

import hypothesis

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# What XLA compiles for tests runs once: LLVM need not optimize it.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# A shell that runs the tests in the background lets them and all that they start ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("l2p_tf", deadline=None)
hypothesis.settings.load_profile("l2p_tf")


def pytest_collection_finish():
    """Spares the collector what the imports made: it would visit all of TensorFlow again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
