"""Attacks a trained classifier and writes per-example results.

python -m stages.attack --flagfile=configs/l2p.flags --attacks='fgsm; pgd(steps=20, restarts=2); pgd(draws=10)'
python -m stages.attack --attacks=help

Reads RUN_DIR/NAME/train and RUN_DIR/data (or --data); makes RUN_DIR/NAME/attack. A randomised model is evaluated
--repeats times. Continues where an earlier run of the same command stopped.
"""

from __future__ import annotations

from stages import common, settings

settings.show("attack")
settings.show_flags("name", "defense", "data")


def main(_argv: list[str]) -> None:
    if settings.asked_for_help():
        return
    settings.start()
    name = settings.run_name()
    run = settings.trained(name)
    records = settings.attack(name, run, settings.made_data())

    from rich.console import Console

    from l2p_tf.reporting.tables import console_table

    Console().print(console_table(records))


if __name__ == "__main__":
    common.run(main)
