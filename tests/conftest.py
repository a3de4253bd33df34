"""Settings every test shares."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# What XLA compiles for tests runs once: LLVM need not optimize it.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
