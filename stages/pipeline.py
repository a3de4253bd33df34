"""Runs the stages in order from one flag file: data, then train and attack for every defense, export, report.

python -m stages.pipeline --flagfile=configs/quickstart.flags

What is up to date is skipped, what was interrupted is continued. --defense may hold several defenses separated by `;`:
all are trained with the same flags on the same data, attacked alike and set side by side. With --certify each run is
also certified, by those certificates that fit it; with --checks the signs of gradient masking are looked for.

--sweep="epsilon=0.01,0.02,0.05" --sweep="width=1,2" trains and evaluates a family of runs, one for each combination,
and the report draws its curves. The runs share nothing but the data, so machines can take shares of them:
--sweep_shard=1/4 on the first of four, each with a folder of its own, and stages.report --runs=A,B,C,D joins them.

--experiment=l2p_table2 reproduces a table or figure of one of the papers: it says which trainings and attacks that
needs, which of them are done and how long the rest should take, does it, and reports the published beside the measured
figures. --scale=digits does so in miniature, in minutes; --dry_run only says. --experiment=help lists all.
"""

from __future__ import annotations

from l2p_tf.types import UserError
from stages import calls, common, experiment, helps, settings

settings.show("data", "train", "sweep", "attack", "export", "report", "experiment")


def main(_: list[str]) -> None:
    if helps.asked_for_help():
        return
    if settings.FLAGS.experiment:
        experiment.main()
        return
    if settings.FLAGS.scale != settings.FLAGS["scale"].default or settings.FLAGS.dry_run:
        raise UserError("`--scale` and `--dry_run` should be given with --experiment.")
    settings.start()
    named = settings.runs()
    wanted = [name.strip() for name in settings.FLAGS.export if name.strip()]
    unknown = sorted(set(wanted) - set(named) - {"all"})
    if unknown:
        raise UserError(f"`--export` should name runs of {', '.join(named)}, or all. Received: {unknown[0]!r}")
    own = settings.shard(named)
    if not own:
        common.say(f"Nothing to do: there are {len(named)} runs, none of them in share {settings.FLAGS.sweep_shard}")
        return
    # Bad flags are told before the first training, not after it.
    for name, options in own.items():
        calls.check_source(options, [*calls.trained_names(), *list(own)[: list(own).index(name)]])
    if wanted:
        calls.check_export()
    settings.check_attacks()
    calls.check_generators([*calls.trained_names(), *own])
    settings.certification_options()
    settings.matched()
    sources = settings.transfer_sources(list(named))
    unknown = sorted({name for source in sources for name in source.split("+")} - set(named))
    if unknown:
        raise UserError(f"`--transfer` should name runs of {', '.join(named)}, or all. Received: {unknown[0]!r}")
    images = calls.data()
    # An attack may need another run's generator, so all are trained before the first is attacked.
    runs = {name: calls.train(options, images) for name, options in own.items()}
    for name, run in runs.items():
        calls.attack(name, run, images)
        calls.check(name, run, images)
        calls.certify(name, run, images, fitting_only=True)
        if name in wanted or "all" in wanted:
            calls.export(name, run, images)
    if sources and len(own) < len(named):
        common.say("transfer: left for a call without --sweep_shard, which finds all runs done")
    elif sources:
        calls.transfer(sources, runs, images)
    # It follows from the rest, which may have grown since the last report.
    calls.report([str(settings.run_dir()), *settings.FLAGS.runs], overwrite=True)


if __name__ == "__main__":
    common.run(main)
