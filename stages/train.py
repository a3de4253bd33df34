"""Trains one classifier, or continues where an earlier run of the same command stopped.

python -m stages.train --config=l2p
python -m stages.train --dataset=digits --model='resnet_v1(depth=8)' --defense='pgd(epsilon=0.15)' --run_dir=runs/mine
python -m stages.train --defense=help

Makes RUN_DIR/NAME/train: best.keras, last.keras, history.csv, logs for TensorBoard, and state.npz, from which the same
command with more --epochs goes on. The data are prepared first, in RUN_DIR/data, where --data does not name them.
"""

from __future__ import annotations

from stages import calls, common, definitions, helps, settings

definitions.show("train")


def main(_: list[str]) -> None:
    if helps.asked_for_help():
        return
    flags = settings.read()
    settings.start(flags)
    calls.train(flags, flags.one_run, calls.data(flags))


if __name__ == "__main__":
    common.run(main)
