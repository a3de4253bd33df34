"""Makes a run of a classifier that was trained elsewhere, which all later stages take as any run.

python -m stages.importer --dataset=digits --model_file=my.keras --run_dir=runs/mine
python -m stages.importer --run_dir=runs/mine --model_file=saved_model_folder --name=served --output=logits
python -m stages.importer --run_dir=runs/mine --model_file='keras_application(name=MobileNetV2, weights=none)'

Makes RUN_DIR/NAME/train with best.keras: float32 images in [0, 1] to logits. What the model answers, which pixels it
expects, whether it is random, whether its gradient can be followed and whether its classes are those of the data is
found out on labeled images of RUN_DIR/data (or --data), said, and kept for the report and the model's card. A softmax
at the end is taken off and the range of pixels is fitted; what cannot be mended is refused.

Nothing in a file is executed; a SavedModel is a TensorFlow program, of which graph operations are run that stay within
it. A model with Lambda layers or classes of its own needs --custom_objects=FILE.py, whose code is run.
"""

from __future__ import annotations

from stages import calls, common, definitions, helps, settings

definitions.show("importer")


def main(_: list[str]) -> None:
    if helps.asked_for_help():
        return
    flags = settings.read()
    settings.start(flags)
    wanted = flags.imports  # Report bad flags before the data are created.
    calls.import_models(flags, wanted, calls.made_data(flags))


if __name__ == "__main__":
    common.run(main)
