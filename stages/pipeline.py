"""Runs the stages in order from one flag file: data, then train and attack for every defense, export, report.

python -m stages.pipeline --config=quickstart

What is up to date is skipped, what was interrupted is continued. --defense may hold several defenses separated by `;`:
all are trained with the same flags on the same data, attacked alike and set side by side. With --certify each run is
also certified, by those certificates that fit it. The signs of gradient masking are looked for unless --checks=0.
--classifiers='mine=my.keras; other=saved_model_folder' judges models that were trained elsewhere, beside them or alone.

--sweep="epsilon=0.01,0.02,0.05" --sweep="width=1,2" trains and evaluates a family of runs, one for each combination,
and the report draws its curves. The runs share nothing but the data, so machines can take shares of them:
--sweep_shard=1/4 on the first of four, each with a folder of its own, and stages.report --runs=A,B,C,D joins them.

--experiment=l2p_table2 reproduces a table or figure of one of the papers: it says which trainings and attacks that
needs, which of them are done and how long the rest should take, does it, and reports the published beside the measured
figures. --scale=digits does so in miniature, in minutes; --dry_run only says. --experiment=help lists all.
"""

from __future__ import annotations

from l2p_tf.types import UserError
from stages import calls, common, definitions, experiment, gates, helps, settings

definitions.show("pipeline")


def main(_: list[str]) -> int:
    if helps.asked_for_help():
        return 0
    flags = settings.read()
    if flags.share:
        raise UserError("`--share` should be given to stages.attack, once the runs are trained.")
    if flags.experiment:
        if flags.bounds:
            raise UserError("`--require` is for runs that flags describe, not for --experiment.")
        experiment.main(flags)
        return 0
    if "scale" in flags.given or flags.dry_run:
        raise UserError("`--scale` and `--dry_run` should be given with --experiment.")
    settings.start(flags)
    models = flags.imports if flags.classifiers.strip() else {}
    trainings = {} if models and not flags.defense else flags.trainings
    twice = sorted(set(models) & set(trainings))
    if twice:
        raise UserError(f"`--classifiers` should have names of their own. A run is called {twice[0]!r} already.")
    named = [*models, *trainings]
    wanted = [name.strip() for name in flags.export if name.strip()]
    unknown = sorted(set(wanted) - set(named) - {"all"})
    if unknown:
        raise UserError(f"`--export` should name runs of {', '.join(named)}, or all. Received: {unknown[0]!r}")
    own = flags.shard if trainings else {}
    if not own and not models:
        common.say(f"Nothing to do: there are {len(named)} runs, none of them in share {flags.sweep_shard}")
        return 0
    # Report bad flags before the first training, not after it.
    for name, options in own.items():
        calls.check_source(options, [*calls.trained_names(flags), *models, *list(own)[: list(own).index(name)]])
    if wanted:
        calls.check_export(flags)
    flags.check()
    gates.check(flags, named)
    calls.check_generators(flags, [*calls.trained_names(flags), *models, *own])
    sources = flags.transfer_sources(named)
    unknown = sorted({name for source in sources for name in source.split("+")} - set(named))
    if unknown:
        raise UserError(f"`--transfer` should name runs of {', '.join(named)}, or all. Received: {unknown[0]!r}")
    images = calls.data(flags)
    # An attack may need another run's generator, so all are trained before the first is attacked.
    runs = calls.import_models(flags, models, images)
    runs |= {name: calls.train(flags, options, images) for name, options in own.items()}
    for name, run in runs.items():
        calls.attack(flags, name, run, images)
        calls.check(flags, name, run, images)
        calls.certify(flags, name, run, images, fitting_only=True)
        if name in wanted or "all" in wanted:
            calls.export(flags, name, run, images, fitting_only=True)
    if sources and len(runs) < len(named):
        common.say("transfer: left for a call without --sweep_shard, which finds all runs done")
    elif sources:
        calls.transfer(flags, sources, runs, images)
    status = gates.hold(flags, list(runs), images)
    # Always overwritten, because the results may have grown since the last report.
    calls.report(flags, [str(flags.folder), *flags.runs], overwrite=True)
    return status


if __name__ == "__main__":
    common.run(main)
