"""Makes a report of finished runs: one self-contained page, and its table as Markdown and CSV.

python -m stages.report --runs=runs/digits --output=runs/digits/report
python -m stages.report --runs=runs/a,runs/b --output=runs/report --title='Table 1 of Learn2Perturb'
"""

from __future__ import annotations

from absl import flags
from rich.console import Console

from l2p_tf.reporting import report
from stages import common

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_list("runs", None, "Folders with finished stages, in them or up to two levels below.")
    flags.DEFINE_string("output", None, "The folder to make.")
    flags.DEFINE_string("title", "", "Title of the page.")
    common.define_common()


def main(_: list[str]) -> None:
    folders = [folder.strip() for folder in common.require("runs") if folder.strip()]
    made = report.make(folders, common.require("output"), FLAGS.title, seed=FLAGS.seed, overwrite=FLAGS.overwrite)
    made.table.to_console(Console())
    for path in made.left_out:
        common.say(f"Left out, not finished: {str(path)!r}")
    page = str(made.path / report.HTML)
    common.say(f"Written to {page!r}" if made.made else f"Up to date: {page!r}")


define_flags()

if __name__ == "__main__":
    common.run(main)
