"""The flags of all stages by topic, defined once, so that one flag file can drive every stage.

Those of trainings, evaluations, checks and certificates are derived from the options that the library declares. A stage
shows the topics it reads in its `--help`; other flags are accepted and ignored.
"""

from __future__ import annotations

import functools
import sys
import textwrap
import types
import typing
from typing import Any

from absl import flags

from l2p_tf.certification.options import CertificationOptions
from l2p_tf.environment import STRATEGIES
from l2p_tf.evaluation.options import CheckOptions, EvaluationOptions
from l2p_tf.fitting.options import TrainOptions
from l2p_tf.imported.options import ImportOptions
from l2p_tf.options import StageOptions, declared, flag_of
from l2p_tf.registry import parse_number
from l2p_tf.server.options import ServeOptions
from stages import common

FLAGS = flags.FLAGS
TOPICS: dict[str, list[str]] = {}
"""Names of the flags of each topic, in help order."""


class _Number(flags.FloatParser):
    """A number that may be written as arithmetic: `8/255`."""

    def convert(self, argument: Any) -> float:
        return parse_number(argument) if isinstance(argument, str) else float(argument)


def _define(topic: str, define: Any, name: str, *arguments: Any, **how: Any) -> None:
    define(name, *arguments, **how)
    TOPICS.setdefault(topic, []).append(name)


def _number(name: str, default: float | None, text: str, low: float | None = None, high: float | None = None) -> None:
    flags.DEFINE(_Number(low, high), name, default, text, serializer=flags.ArgumentSerializer())


def _define_options(topic: str, options: type[StageOptions]) -> None:
    """Defines a flag for each option declared by a dataclass, unless it already exists."""
    hints = typing.get_type_hints(options)
    for field in declared(options):
        name, given = flag_of(field), field.metadata
        default: Any = field.default
        if name in FLAGS:
            continue
        hint = hints[field.name]
        kinds = (
            [k for k in typing.get_args(hint) if k is not type(None)] if isinstance(hint, types.UnionType) else [hint]
        )
        how: dict[str, Any] = {"lower_bound": given["low"], "upper_bound": given["high"]}
        if given["choices"]:
            _define(topic, flags.DEFINE_enum, name, default, list(given["choices"]), given["help"])
        elif kinds == [bool]:
            _define(topic, flags.DEFINE_bool, name, default, given["help"])
        elif kinds == [int]:
            _define(topic, flags.DEFINE_integer, name, default, given["help"], **how)
        elif kinds == [float]:
            _define(topic, _number, name, default, given["help"], given["low"], given["high"])
        elif given["specs"] or kinds == [str]:
            _define(topic, flags.DEFINE_string, name, default or "", given["help"])
        else:
            _define(topic, flags.DEFINE_list, name, list(default), given["help"])


_DATA, _TRAINING, _SWEEP, _ATTACKS = "Data", "Training", "Sweeps", "Attacks"
_CHECKS, _CERTIFICATES, _REPORT, _EXPERIMENT = "Checks for gradient masking", "Certificates", "Report", "Experiments"
_GENERAL, _EXPORT, _RUN, _SHARING = "General", "Export", "Run", "Several processes"
_IMPORT, _SERVING = "Models from elsewhere", "Serving"

_define(
    _GENERAL, flags.DEFINE_string, "run_dir", "runs/default",
    "Where everything goes: data, NAME/train, NAME/attack, report.",
)  # fmt: skip
_define(
    _GENERAL, flags.DEFINE_string, "config", "",
    "A flag file of the package, such as quickstart; flags beside it override its own. `help` lists all.",
)  # fmt: skip
_define(_GENERAL, flags.DEFINE_integer, "seed", 0, "Decides everything random.", 0, 2**31 - 1)
_define(
    _GENERAL, flags.DEFINE_list, "plugins", [],
    "Python files or modules with attacks, defenses, networks, data sets or certificates of your own; their code runs.",
)  # fmt: skip
_define(_GENERAL, flags.DEFINE_bool, "overwrite", False, "Replace outputs that were made with other options.")
_define(
    _GENERAL, flags.DEFINE_bool, "deterministic", False,
    "The same bits on every run on this machine; slow on a CPU (one thread).",
)  # fmt: skip
_define(
    _GENERAL, flags.DEFINE_enum, "jit", "auto", ["auto", "on", "off"],
    "Compile with XLA; auto does so on a GPU, but not a training step that several devices share.",
)  # fmt: skip
_define(
    _GENERAL, flags.DEFINE_enum, "strategy", "auto", list(STRATEGIES),
    "Devices that share every batch: one, all of this machine (mirrored), or those of all processes that TF_CONFIG "
    "names (multi_worker), each of which runs this command on a folder that all see. auto takes what there is.",
)  # fmt: skip

_define(_RUN, flags.DEFINE_string, "name", "", "Name of the run; empty takes the defense's.")
_define(
    _RUN, flags.DEFINE_string, "defense", None,
    "The defense; the pipeline takes several, separated by `;`. `help` lists all.",
)  # fmt: skip
_define(_RUN, flags.DEFINE_string, "data", "", "A data artifact to use as it is; empty makes or finds RUN_DIR/data.")
_define(
    _RUN, flags.DEFINE_list, "checkpoint", ["best"],
    "Models to attack: best by validation, last, or both; other stages take the first.",
)  # fmt: skip

_define(
    _DATA, flags.DEFINE_string, "dataset", None,
    "The data set, such as cifar10, 'folder(path=photos)' or 'tfds(dataset=mnist)'; `help` lists all.",
)  # fmt: skip
_define(
    _DATA, flags.DEFINE_integer, "image_size", None,
    "Side of the square that images are resized to: the option image_size of the data set.", lower_bound=1,
)  # fmt: skip
_define(_DATA, flags.DEFINE_string, "data_dir", "", "The folder of TensorFlow Datasets; empty for its default.")
_define(_DATA, flags.DEFINE_bool, "download", True, "Download the data set when it is not there.")
_define(_DATA, _number, "validation_share", 0.1, "Share of the training images held out for validation, below 1.", 0)
_define(_DATA, flags.DEFINE_integer, "limit_train", None, "At most how many training images.", lower_bound=1)
_define(_DATA, flags.DEFINE_integer, "limit_test", None, "At most how many test images.", lower_bound=1)
_define(
    _DATA, flags.DEFINE_enum, "stream", "auto", ["auto", "on", "off"],
    "Read images where TensorFlow Datasets has them instead of copying them; auto does so where the copy would be "
    "larger than 4 GB, or random crops are cut from images before they are resized.",
)  # fmt: skip

_define_options(_IMPORT, ImportOptions)
_define_options(_SERVING, ServeOptions)
_define(
    _IMPORT, flags.DEFINE_string, "classifiers", "",
    "Models that the pipeline imports beside or instead of what it trains: NAME=MODEL, each as --model_file takes it, "
    "separated by `;`.",
)  # fmt: skip

_define_options(_TRAINING, TrainOptions)
_define(
    _TRAINING, flags.DEFINE_list, "noise_after", [],
    "Layers of --model='file(path=...)' after which a defense adds its noise, such as 'add*,*_conv'; by default the "
    "first convolution and every residual sum.",
)  # fmt: skip
_define(_TRAINING, _number, "checkpoint_minutes", 10.0, "Most minutes between saved states within an epoch.", 0)

_define(
    _SWEEP, flags.DEFINE_multi_string, "sweep", [],
    "Values to train a run with each, OPTION=VALUE,VALUE: an option of the defense, of the model or of training; "
    "DEFENSE. before it is for one defense alone. Several sweeps: their product.",
)  # fmt: skip
_define(
    _SWEEP, flags.DEFINE_string, "sweep_shard", "",
    "The share of the runs to do here: 2/8 is every eighth, from the second on.",
)  # fmt: skip

_define_options(_ATTACKS, EvaluationOptions)
_define(
    _ATTACKS, flags.DEFINE_string, "require", "",
    "Accuracies that a build depends on, as 'autoattack>=0.45; clean>=0.9; worst>=0.4', or RUN: before one: where the "
    "lower end of a 95% interval is below, the exit status is 3. worst counts images that are right under all attacks.",
)  # fmt: skip
_define(
    _ATTACKS, flags.DEFINE_list, "backend", ["l2p_tf"],
    "Whose implementations of these attacks to run: l2p_tf, cleverhans, foolbox, art; each makes a folder. Attacks "
    "that only others have are named among --attacks: foolbox(attack=...), art(attack=...).",
)  # fmt: skip
_define(
    _ATTACKS, flags.DEFINE_list, "corruptions", [],
    "Common corruptions of the images to judge on beside the attacks, such as fog,snow,jpeg; all for all fifteen.",
)  # fmt: skip
_define(
    _ATTACKS, flags.DEFINE_list, "severities", ["1", "2", "3", "4", "5"],
    "How much of each corruption: from 1 to 5, several separated by commas.",
)  # fmt: skip
_define(
    _ATTACKS, flags.DEFINE_list, "transfer", [],
    "Runs to make examples on and show to each other; a+b is an ensemble, all is all.",
)  # fmt: skip

_define(
    _SHARING, flags.DEFINE_bool, "share", False,
    "Share the work with other processes that run the same command on the same folder, here or on other machines.",
)  # fmt: skip

_define_options(_CHECKS, CheckOptions)
_define_options(_CERTIFICATES, CertificationOptions)

_define(
    _EXPORT, flags.DEFINE_integer, "export_draws", None,
    "Draws of the noise a served answer averages; by default the defense's own number, or 16.", lower_bound=1,
)  # fmt: skip
_define(
    _EXPORT, flags.DEFINE_list, "formats", ["savedmodel"],
    "What an export holds beside its SavedModel: onnx, litert, of models without noise.",
)  # fmt: skip
_define(_EXPORT, flags.DEFINE_list, "export", [], "Runs the pipeline exports, by name; `all` for every one.")

_define(
    _REPORT, flags.DEFINE_list, "runs", [],
    "Folders with finished stages, in them or up to two levels below; empty: RUN_DIR.",
)  # fmt: skip
_define(_REPORT, flags.DEFINE_string, "title", "", "Title of the page.")
_define(
    _REPORT, flags.DEFINE_list, "match", [],
    "Clean accuracies, such as 0.68,0.63, at which methods are compared; see the report.",
)  # fmt: skip
_define(
    _REPORT, _number, "match_tolerance", 0.01, "How far from it the clean accuracy of a matched run may lie.", 0, 1
)  # fmt: skip

_define(
    _EXPERIMENT, flags.DEFINE_string, "experiment", "",
    "Reproduce a table or figure of a paper, such as l2p_table2; `help` lists all.",
)  # fmt: skip
_define(
    _EXPERIMENT, flags.DEFINE_string, "scale", "paper",
    "Size of an --experiment: paper, or digits for a miniature in minutes; see `help`.",
)  # fmt: skip
_define(
    _EXPERIMENT, flags.DEFINE_bool, "dry_run", False,
    "Say what an --experiment needs and how long that should take; prepare its data, and no more.",
)  # fmt: skip

STAGES = {
    "data": (_DATA,),
    "importer": (_RUN, _DATA, _IMPORT),
    "train": (_RUN, _DATA, _TRAINING, _SWEEP),
    "attack": (_RUN, _ATTACKS, _CHECKS, _CERTIFICATES, _SHARING),
    "export": (_RUN, _EXPORT),
    "replay": (_RUN,),
    "serve": (_RUN, _EXPORT, _SERVING),
    "report": (_REPORT,),
    "pipeline": (
        _RUN, _DATA, _TRAINING, _IMPORT, _SWEEP, _ATTACKS, _CHECKS, _CERTIFICATES, _EXPORT, _REPORT, _EXPERIMENT,
    ),
}  # fmt: skip
"""The topics of each stage, in addition to the general ones."""


def show(stage: str) -> None:
    """Shows the topics of a stage in its `--help`."""
    names = [name for topic in (*STAGES[stage], _GENERAL) for name in TOPICS[topic]]
    for name in names:
        FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS[name])
    common.help_text = functools.partial(_explained, stage)


def _explained(stage: str) -> str:
    """Formats the flags of a stage by topic, in lines of 80 characters."""
    lines = []
    for topic in (*STAGES[stage], _GENERAL):
        lines += ["", f"{topic}:"]
        for name in TOPICS[topic]:
            flag = FLAGS[name]
            default = flag.serialize().replace("\n", " ") if flag.default not in (None, "", []) else f"--{name}="
            default = f"--[no]{name}  ({'on' if flag.default else 'off'})" if flag.boolean else default
            # Text that absl appends to repeatable flags.
            text = " ".join(str(flag.help).split()).removesuffix("; repeat this option to specify a list of values")
            lines += [f"  {default}", *textwrap.wrap(text, 74, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    return "\n".join(lines)
