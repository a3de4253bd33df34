"""Prepares a data set: images as plain arrays, a validation split, statistics and a sheet of samples.

python -m stages.data --dataset=digits --run_dir=runs/digits
python -m stages.data --dataset=cifar10 --data_dir=DIR --run_dir=runs/cifar10
python -m stages.data --dataset=help

Makes RUN_DIR/data.
"""

from __future__ import annotations

from stages import calls, common, definitions, helps, settings

definitions.show("data")


def main(_: list[str]) -> None:
    if helps.asked_for_help():
        return
    common.say(f"in {str(calls.data(settings.read()).artifact.path)!r}")


if __name__ == "__main__":
    common.run(main)
