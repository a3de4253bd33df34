"""Shows adversarial images that were kept to a model as it is deployed, and compares the verdicts.

python -m stages.attack --run_dir=runs/mine --name=pgd --attacks='autoattack(epsilon=8/255)' --save_images=uint8
python -m stages.replay --run_dir=runs/mine --name=pgd --model=runs/mine/pgd/export
python -m stages.replay --run_dir=runs/mine --name=pgd --model=http://localhost:8501/v1/models/pgd

Reads RUN_DIR/NAME/attack, made with --save_images, and the data it attacked; --model is the folder of an export or of
any SavedModel, or the address of a served one (TensorFlow Serving's REST interface). Makes RUN_DIR/NAME/replay with
replay.json, anew each time. Where a model answers as the run did, nothing was lost on the way to where it is served;
the answers of a randomized one differ by chance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from l2p_tf.types import UserError
from stages import calls, common, definitions, folders, settings

if TYPE_CHECKING:
    from l2p_tf.evaluation.replay import Replay

definitions.show("replay")


def main(_: list[str]) -> None:
    flags = settings.read()
    if "model" not in flags.given:
        raise UserError("`--model` should be the folder of an export or a SavedModel, or the address of a served one.")
    settings.start(flags)
    from l2p_tf import artifacts
    from l2p_tf.evaluation import replay as replaying

    name = calls.run_name(flags)
    images = calls.made_data(flags)
    other = calls.other_data(calls.trained(flags, name), images)
    usual = folders.place(flags, name, "attack", flags.backends[0], flags.checkpoints[0], other)
    attacked = artifacts.read(folders.attacks(flags, name, other)[0] if "limit" in flags.given else usual, "attack")
    output = folders.place(flags, name, replaying.STAGE, other)
    ask = replaying.asked(flags.model, images.info.image_shape)
    show(f"{name} and {flags.model}", replaying.replay(attacked, images, ask, flags.model, output))
    common.say(f"{name}: replayed; in {str(output)!r}")


def show(title: str, replays: list[Replay]) -> None:
    """Prints the comparison of the verdicts."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", title=title, title_justify="left")
    for head in ("wrong\nthen", "wrong\nnow", "same\nverdict", "images"):
        table.add_column(head, justify="right")
    for replay in replays:
        shares = (f"{100 * number / replay.count:.1f}%" for number in (replay.before, replay.now, replay.agree))
        table.add_row(replay.label + (f" ({replay.repeat + 1})" if replay.repeat else ""), *shares, f"{replay.count:,}")
    Console().print(table)


if __name__ == "__main__":
    common.run(main)
