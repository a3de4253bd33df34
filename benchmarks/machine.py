"""The line that every benchmark begins with: what its figures were measured on."""

from __future__ import annotations

import os
import pathlib
import platform
import re

from l2p_tf.environment import onednn


def described() -> str:
    """The CPU, its cores, and whether TensorFlow, which should be loaded, computes with oneDNN."""
    try:
        told = re.search(r"^model name\s*:\s*(.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        told = None
    cpu = told.group(1) if told else platform.processor() or platform.machine()
    return f"{cpu}, {os.cpu_count()} cores, oneDNN {'on' if onednn() else 'off'}"
