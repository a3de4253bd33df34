"""Makes a report of finished runs: one self-contained page, and its tables as Markdown, CSV and LaTeX.

python -m stages.report --run_dir=runs/quickstart
python -m stages.report --runs=runs/a,runs/b --run_dir=runs/both --title='Table 1 of Learn2Perturb'

Makes RUN_DIR/report: report.html, report.md, table.csv and strength.csv (what the runs were attacked with); in cards/ a
model card for each exported run; where there is something to say, paired.csv (who is better), norms.csv (sizes of the
smallest perturbations), power.csv (accuracy by that size), epsilons.csv (accuracy by radius), sweep.csv (the runs of a
sweep), matched.csv (methods at the same clean accuracy), certified.csv (certified accuracy against radius),
transfer.csv (sources against targets), backends.csv (CleverHans beside our own attacks), classes.csv (accuracy class by
class) and confusions.csv (which class was taken for which). Beside each .csv lies the table in LaTeX, a .tex.
"""

from __future__ import annotations

from stages import calls, common, settings

settings.show("report")


def main(_: list[str]) -> None:
    folders = [folder.strip() for folder in settings.FLAGS.runs if folder.strip()]
    calls.report(folders or [str(settings.run_dir())], settings.FLAGS.overwrite)


if __name__ == "__main__":
    common.run(main)
