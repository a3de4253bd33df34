"""Trains one classifier, or continues where an earlier run of the same command stopped.

python -m stages.train --flagfile=configs/l2p.flags
python -m stages.train --dataset=digits --model='resnet_v1(depth=8)' --defense='pgd(epsilon=0.15)' --run_dir=runs/mine
python -m stages.train --defense=help

Makes RUN_DIR/NAME/train: best.keras, last.keras, history.csv, logs for TensorBoard, and state.npz, from which the same
command with more --epochs goes on. The data are prepared first, in RUN_DIR/data, where --data does not name them.
"""

from __future__ import annotations

from stages import calls, common, helps, settings

settings.show("data", "train", "sweep")


def main(_: list[str]) -> None:
    if helps.asked_for_help():
        return
    settings.start()
    calls.train(settings.one_run(), calls.data())


if __name__ == "__main__":
    common.run(main)
