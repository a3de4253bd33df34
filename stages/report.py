"""Makes a report of finished runs: one self-contained page, and its tables as Markdown, CSV and LaTeX.

python -m stages.report --run_dir=runs/quickstart
python -m stages.report --runs=runs/a,runs/b --run_dir=runs/both --title='Table 1 of Learn2Perturb'

Makes RUN_DIR/report: report.html, report.md, and for each of its sections the figures as NAME.csv and the tables in
LaTeX, NAME.tex: comparison, paired (who is better), checks (for gradient masking), strength (what the runs were
attacked with), parameters; and where there is something to say: norms (sizes of the smallest perturbations), power
(accuracy by that size), epsilons (accuracy by radius), sweep (the runs of a sweep), matched (methods at the same clean
accuracy), certified (certified accuracy against radius), corruptions (accuracy on corrupted images, calibration),
transfer (sources against targets), backends (other implementations beside our own), libraries (the worst case over the
attacks of several libraries), classes (accuracy class by class) and confusions (which class was taken for which). Plots
are in plots/, in cards/ is a model card for each exported run, and in robustbench/ RobustBench's JSON for each
deterministic run that was under AutoAttack as its leaderboards have it (cifar10, cifar100, imagenet).
"""

from __future__ import annotations

from stages import calls, common, definitions, settings

definitions.show("report")


def main(_: list[str]) -> None:
    flags = settings.read()
    folders = [folder.strip() for folder in flags.runs if folder.strip()]
    calls.report(flags, folders or [str(flags.folder)], flags.overwrite)


if __name__ == "__main__":
    common.run(main)
