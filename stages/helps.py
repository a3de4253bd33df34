"""Output of `help` as the value of a flag: all names with their options, or one in full."""

from __future__ import annotations

import importlib

from stages import common, configs
from stages.definitions import FLAGS

_REGISTRIES = {
    "dataset": ("l2p_tf.data", "DATASETS"),
    "model": ("l2p_tf.models", "MODELS"),
    "defense": ("l2p_tf.defenses", "DEFENSES"),
    **dict.fromkeys(("attacks", "validation_attack", "rho_attack"), ("l2p_tf.attacks", "ATTACKS")),
    "certify": ("l2p_tf.certification.base", "CERTIFICATES"),
}
"""Registries of the values of flags."""


def asked_for_help() -> bool:
    """Prints help for every flag with the value `help`, or `help(NAME)` for one name; returns whether there was one."""
    texts = []
    for flag, (module, name) in _REGISTRIES.items():
        value = str(FLAGS[flag].value or "").strip()
        if value.startswith("help"):  # Checked before the import, which takes seconds.
            if flag != "dataset":
                common.load_tensorflow()
            text = getattr(importlib.import_module(module), name).help(value)
            texts += [text] if text is not None else []
    if FLAGS.config == "help":
        texts.append(configs.listed())
    if FLAGS.published == "help":
        from l2p_tf.experiments import printed

        texts.append("\n".join(printed.references()))
    if FLAGS.scale == "help":
        from l2p_tf.experiments.scales import SCALES

        texts.append(SCALES.help())
    if FLAGS.experiment == "help":
        from stages import experiment

        texts.append(experiment.listed())
    for text in texts:
        common.say(text)
    return bool(texts)
