"""Imports external models as runs, and prints the findings about each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages import common
from stages.settings import Settings

if TYPE_CHECKING:
    from l2p_tf.artifacts import Artifact
    from l2p_tf.data.store import ImageData
    from l2p_tf.imported.options import ImportOptions


def import_models(settings: Settings, wanted: dict[str, ImportOptions], images: ImageData) -> dict[str, Artifact]:
    """Returns the runs by name, importing those that are not finished."""
    from l2p_tf.contract import FITS
    from l2p_tf.imported.run import contract_of, import_model

    made = {}
    for name, options in wanted.items():
        output = settings.folder / name / "train"
        existed = output.exists() and not settings.overwrite
        with settings.devices.chief_first():
            made[name] = import_model(options, images, output, settings.overwrite and settings.devices.is_chief)
        state = " (up to date)" if existed else ""
        common.say(f"{name}: imported from {made[name].options['model']}{state}; in {str(output)!r}")
        for finding in contract_of(made[name]):
            common.say(f"  {finding.check}{'' if finding.verdict == FITS else f' ({finding.verdict})'}: {finding.text}")
    return made
