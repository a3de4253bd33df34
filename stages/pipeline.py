"""Runs the stages in order from one flag file: data, then train and attack for every defence, export, report.

python -m stages.pipeline --flagfile=configs/quickstart.flags

What is up to date is skipped, what was interrupted is continued. --defense may hold several defences separated by `;`:
all are trained with the same flags on the same data, attacked alike and set side by side. With --certify each run is
also certified, by those certificates that fit it.
"""

from __future__ import annotations

from l2p_tf.types import UserError
from stages import calls, common, settings

settings.show("data", "train", "attack", "export", "report")


def main(_: list[str]) -> None:
    if settings.asked_for_help():
        return
    settings.start()
    named = settings.defenses()
    wanted = [name.strip() for name in settings.FLAGS.export if name.strip()]
    unknown = sorted(set(wanted) - set(named) - {"all"})
    if unknown:
        raise UserError(f"`--export` should name runs of {', '.join(named)}, or all. Received: {unknown[0]!r}")
    for name, defense in named.items():
        settings.train_options(name, defense)  # Bad flags are told before the first training, not after it.
        calls.check_source(name, defense, [*calls.trained_names(), *list(named)[: list(named).index(name)]])
    settings.check_attacks()
    settings.certification_options()
    sources = settings.transfer_sources(list(named))
    unknown = sorted({name for source in sources for name in source.split("+")} - set(named))
    if unknown:
        raise UserError(f"`--transfer` should name runs of {', '.join(named)}, or all. Received: {unknown[0]!r}")
    images = calls.data()
    runs = {}
    for name, defense in named.items():
        runs[name] = run = calls.train(name, defense, images)
        calls.attack(name, run, images)
        calls.certify(name, run, images, fitting_only=True)
        if name in wanted or "all" in wanted:
            calls.export(name, run, images)
    if sources:
        calls.transfer(sources, runs, images)
    # It follows from the rest, which may have grown since the last report.
    calls.report([str(settings.run_dir()), *settings.FLAGS.runs], overwrite=True)


if __name__ == "__main__":
    common.run(main)
