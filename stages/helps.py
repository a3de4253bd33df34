"""What `help` as the value of a flag prints: every name there is, with its options."""

from __future__ import annotations

from stages import common
from stages.settings import FLAGS


def asked_for_help() -> bool:
    """Prints the names behind every flag whose value is `help`; True where there was one."""
    texts = []
    if FLAGS.dataset == "help":
        from l2p_tf.data import DATASETS

        texts.append(DATASETS.help())
    if FLAGS.model == "help":
        from l2p_tf.models import MODELS

        texts.append(MODELS.help())
    if FLAGS.defense == "help":
        from l2p_tf.defenses import DEFENSES

        texts.append(DEFENSES.help())
    if FLAGS.attacks == "help":
        from l2p_tf.attacks import ATTACKS

        texts.append(ATTACKS.help())
    if FLAGS.certify == "help":
        from l2p_tf.certification.base import CERTIFICATES

        texts.append(CERTIFICATES.help())
    if FLAGS.published == "help":
        from l2p_tf.reporting import published

        texts.append("\n".join(published.load().references()))
    if FLAGS.scale == "help":
        from l2p_tf.experiments.scales import SCALES

        texts.append(SCALES.help())
    if FLAGS.experiment == "help":
        from stages import experiment

        texts.append(experiment.listed())
    for text in texts:
        common.say(text)
    return bool(texts)
