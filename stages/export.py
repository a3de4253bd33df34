"""Exports a trained classifier as a SavedModel for serving.

python -m stages.export --config=l2p --export_draws=16

Reads RUN_DIR/NAME/train; makes RUN_DIR/NAME/export with `saved_model` and `serving.json`, which says what goes in and
comes out. Answers of a randomized model are averaged over --export_draws draws of its noise.
"""

from __future__ import annotations

from stages import calls, common, definitions, helps, settings

definitions.show("export")


def main(_argv: list[str]) -> None:
    if helps.asked_for_help():
        return
    flags = settings.read()
    settings.start(flags)
    name = calls.run_name(flags)
    calls.export(flags, name, calls.trained(flags, name), calls.made_data(flags))


if __name__ == "__main__":
    common.run(main)
