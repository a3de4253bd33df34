"""The flags of all stages, defined once, so that one flag file drives every stage; and what they come to.

A stage shows those it reads in its `--help`; the others are accepted and left alone.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags
from absl.testing import flagsaver

from l2p_tf.environment import user_path
from l2p_tf.files import check_name
from l2p_tf.types import UserError
from stages import common

if TYPE_CHECKING:
    from l2p_tf.attacks.base import Attack
    from l2p_tf.certification.run import CertificationOptions
    from l2p_tf.defenses.base import Defense
    from l2p_tf.evaluation.battery import CheckOptions
    from l2p_tf.evaluation.evaluate import EvaluationOptions
    from l2p_tf.fitting.run import TrainOptions

FLAGS = flags.FLAGS
_GROUPS: dict[str, list[str]] = {}


def show(*groups: str) -> None:
    """Makes the flags of these groups those of the calling stage's `--help`."""
    for group in ("common", *groups):
        show_flags(*_GROUPS[group])


def show_flags(*names: str) -> None:
    """Makes these flags those of the calling stage's `--help`."""
    for name in names:
        FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS[name])


def _group(name: str, before: set[str]) -> set[str]:
    now = set(FLAGS)
    _GROUPS[name] = sorted(now - before)
    return now


_known = set(FLAGS)
flags.DEFINE_string("run_dir", "runs/default", "Where everything goes: data, NAME/train, NAME/attack, report.")
flags.DEFINE_integer("seed", 0, "Decides everything random.", lower_bound=0, upper_bound=2**31 - 1)
flags.DEFINE_bool("overwrite", False, "Replace outputs that were made with other options.")
flags.DEFINE_bool("deterministic", False, "The same bits on every run on this machine; slow on a CPU (one thread).")
flags.DEFINE_enum("jit", "auto", ["auto", "on", "off"], "Compile with XLA; auto does so on a GPU.")
_known = _group("common", _known)

flags.DEFINE_string("dataset", None, "The data set, such as cifar10 or 'tfds(dataset=mnist)'; `help` lists all.")
flags.DEFINE_string("data", "", "A data artifact to use as it is; empty makes or finds RUN_DIR/data.")
flags.DEFINE_string("data_dir", "", "The folder of TensorFlow Datasets; empty for its default.")
flags.DEFINE_bool("download", True, "Download the data set when it is not there.")
common.define_number("validation_share", 0.1, "Share of the training images held out for validation, below 1.", 0)
flags.DEFINE_integer("limit_train", None, "At most how many training images.", lower_bound=1)
flags.DEFINE_integer("limit_test", None, "At most how many test images.", lower_bound=1)
_known = _group("data", _known)

flags.DEFINE_string("name", "", "Name of the run; empty takes the defense's.")
flags.DEFINE_string("model", "resnet_v1(depth=20)", "The architecture; `help` lists all with their options.")
flags.DEFINE_string("defense", None, "The defense; the pipeline takes several, separated by `;`. `help` lists all.")
flags.DEFINE_integer("epochs", 100, "Epochs of training; more than a finished one has continue it.", lower_bound=1)
flags.DEFINE_integer("batch_size", 128, "Images per training step.", lower_bound=1)
flags.DEFINE_enum("optimizer", "sgd", ["sgd", "adam"], "SGD with Nesterov momentum, or Adam.")
common.define_number("learning_rate", 0.1, "Learning rate at the start.", 0)
flags.DEFINE_list("drops", [], "Epochs at which the learning rate is multiplied by --drop_factor.")
common.define_number("drop_factor", 0.1, "See --drops.", 0, 1)
common.define_number("momentum", 0.9, "Nesterov momentum of SGD.", 0, 1)
common.define_number(
    "weight_decay", None, "Coupled weight decay, never on the noise's parameters; 1e-4 for SGD, none for Adam.", 0
)
flags.DEFINE_bool("augment", True, "Crop and flip training images as the data set says.")
flags.DEFINE_list("mean", [], "Channel means to subtract; empty takes the training images' own.")
flags.DEFINE_list("std", [], "Channel standard deviations to divide by; empty likewise.")
flags.DEFINE_string("validation_attack", "pgd(steps=7, step_size=0.01)", "Measures robust validation accuracy.")
common.define_number("ema", 0.0, "Decay of the average of the weights that is judged and saved; 0: no average.", 0, 1)
flags.DEFINE_integer(
    "early_stopping", 0, "Epochs after which a training without a better model ends; 0: never.", lower_bound=0
)
flags.DEFINE_string("rho_attack", "", "Attack of smallest l2 norm run at each validation, for the curve of its mean.")
flags.DEFINE_integer("validate_every", 1, "Epochs between validations.", lower_bound=1)
flags.DEFINE_integer("validation_limit", 1000, "Most validation images used; 0 for all.", lower_bound=0)
flags.DEFINE_enum("precision", "float32", ["float32", "mixed_bfloat16"], "Precision of training.")
common.define_number("checkpoint_minutes", 10.0, "Most minutes between saved states within an epoch.", 0)
flags.DEFINE_string("published", "", "Published table row to show beside the measured numbers; `help` lists all.")
_known = _group("train", _known)

flags.DEFINE_multi_string(
    "sweep", [], "Values to train a run with each, OPTION=VALUE,VALUE: an option of the defense, of the model or of "
    "training; DEFENSE. before it is for one defense alone. Several sweeps: their product.",
)  # fmt: skip
flags.DEFINE_string("sweep_shard", "", "The share of the runs to do here: 2/8 is every eighth, from the second on.")
_known = _group("sweep", _known)

flags.DEFINE_string(
    "attacks", "fgsm; pgd(steps=20)", "Attacks to run, separated by `;`; those done already stay. `help` lists all."
)
flags.DEFINE_enum("split", "test", ["test", "validation"], "Images to attack.")
flags.DEFINE_integer("limit", None, "Most images to attack, every class alike; all when not given.", lower_bound=1)
flags.DEFINE_integer("repeats", 3, "Evaluations of a randomized model.", lower_bound=1)
flags.DEFINE_integer(
    "prediction_draws", None, "Draws of the noise that one answer averages; the defense's own number when not given.",
    lower_bound=1,
)  # fmt: skip
flags.DEFINE_integer("attack_batch_size", 128, "Images per pass.", lower_bound=1)
flags.DEFINE_list("backend", ["l2p_tf"], "Whose attacks to run: l2p_tf, cleverhans, or both; each makes a folder.")
flags.DEFINE_list("transfer", [], "Runs to make examples on and show to each other; a+b is an ensemble, all is all.")
flags.DEFINE_string("certify", "", "Certificates of robustness to compute, separated by `;`. `help` lists all.")
flags.DEFINE_integer(
    "checks", 0, "Images on which the signs of gradient masking are looked for; 0: none.", lower_bound=0
)
common.define_number(
    "checks_epsilon", None, "Linf radius of --checks; that of the run's own training, else 8/255, when not given.", 0
)
flags.DEFINE_list("checkpoint", ["best"], "Models to attack: best by validation, last, or both; others take the first.")
_known = _group("attack", _known)

flags.DEFINE_integer(
    "export_draws", None, "Draws of the noise a served answer averages; by default the defense's own number, or 16.",
    lower_bound=1,
)  # fmt: skip
flags.DEFINE_list("export", [], "Runs the pipeline exports, by name; `all` for every one.")
_known = _group("export", _known)

flags.DEFINE_list("runs", [], "Folders with finished stages, in them or up to two levels below; empty: RUN_DIR.")
flags.DEFINE_string("title", "", "Title of the page.")
flags.DEFINE_list("match", [], "Clean accuracies, such as 0.68,0.63, at which methods are compared; see the report.")
common.define_number("match_tolerance", 0.01, "How far from it the clean accuracy of a matched run may lie.", 0, 1)
_known = _group("report", _known)

flags.DEFINE_string("experiment", "", "Reproduce a table or figure of a paper, such as l2p_table2; `help` lists all.")
flags.DEFINE_string(
    "scale", "paper", "Size of an --experiment: paper, or digits for a miniature in minutes; see `help`."
)
flags.DEFINE_bool(
    "dry_run", False, "Say what an --experiment needs and how long that should take; prepare its data, and no more."
)
_known = _group("experiment", _known)


def run_dir() -> pathlib.Path:
    """--run_dir."""
    return user_path(common.require("run_dir"))


def jit_compile() -> bool | None:
    """--jit."""
    return {"auto": None, "on": True, "off": False}[FLAGS.jit]


def given(but: Iterable[str] = ()) -> list[str]:
    """What the command line says of the stages' flags, as arguments; `but` names those to leave out."""
    known = [name for names in _GROUPS.values() for name in names if name not in but and FLAGS[name].present]
    return [argument for name in known for argument in FLAGS[name].serialize().splitlines()]


@contextlib.contextmanager
def flags_of(arguments: Sequence[str]) -> Iterator[None]:
    """All flags as these arguments have them and nothing else; as before on leaving."""
    with flagsaver.flagsaver():
        for names in _GROUPS.values():
            for name in names:
                FLAGS[name].unparse()
        try:
            FLAGS(["experiment", *arguments])
        except (flags.Error, ValueError, OSError) as error:
            raise UserError(str(error).removeprefix("ERROR:: ")) from error
        yield


def start() -> None:
    """Loads TensorFlow, with the settings that must come before its first operation."""
    common.load_tensorflow()
    if FLAGS.deterministic:
        from l2p_tf.fitting.run import make_deterministic

        make_deterministic()


def runs() -> dict[str, TrainOptions]:
    """The trainings that the flags describe, by name: one per defense of --defense, or the points of a --sweep."""
    return _family(checked_name() if FLAGS.name else "")


def shard(named: dict[str, TrainOptions]) -> dict[str, TrainOptions]:
    """The runs of --sweep_shard."""
    from l2p_tf.fitting.sweep import share

    return {options.name: options for options in share(list(named.values()), FLAGS.sweep_shard)}


def one_run() -> TrainOptions:
    """The training of a stage that works on one run; --name picks one of a sweep."""
    name = checked_name() if FLAGS.sweep and FLAGS.name else ""
    named = _family("") if name else runs()
    if name:
        if name not in named:
            raise UserError(f"`--name` should be a run of the sweep: {', '.join(named)}. Received: {name!r}")
        return named[name]
    if len(named) > 1:
        raise UserError(
            f"The flags describe {len(named)} runs, which only the pipeline takes: {', '.join(named)}. "
            + ("`--name` picks one." if FLAGS.sweep else "`--defense` should name one defense here.")
        )
    return next(iter(named.values()))


def _family(name: str) -> dict[str, TrainOptions]:
    """The trainings, by name; those of one defense under a name of their own where one is given."""
    from l2p_tf.fitting.sweep import parse_axis, points

    base = [_train_options(run, defense) for run, defense in _defenses(name).items()]
    return {options.name: options for options in points(base, [parse_axis(text) for text in FLAGS.sweep])}


def _defenses(name: str) -> dict[str, Defense]:
    """The defenses of --defense by the name of their run."""
    from l2p_tf.defenses import DEFENSES

    found = DEFENSES.parse_list(common.require("defense"))
    if name:
        if len(found) > 1:
            raise UserError(f"`--name` names one run; --defense holds {len(found)}. Received: {name!r}")
        return {name: found[0]}
    named: dict[str, Defense] = {}
    for defense in found:
        base: str = defense.name  # type: ignore[attr-defined]
        count = sum(known == base or known.startswith(f"{base}-") for known in named)
        named[f"{base}-{count + 1}" if count else base] = defense
    return named


def _train_options(name: str, defense: Defense) -> TrainOptions:
    """What the flags say of a training."""
    from l2p_tf.attacks import ATTACKS
    from l2p_tf.fitting.run import TrainOptions
    from l2p_tf.models import MODELS

    if FLAGS.published:
        from l2p_tf.experiments import printed

        printed.target(FLAGS.published)
    return TrainOptions(
        name=name,
        model=MODELS.parse(FLAGS.model),
        defense=defense,
        validation_attack=_found(ATTACKS.parse(FLAGS.validation_attack)),
        epochs=FLAGS.epochs,
        batch_size=FLAGS.batch_size,
        optimizer=FLAGS.optimizer,
        learning_rate=FLAGS.learning_rate,
        drops=_epochs("drops"),
        drop_factor=FLAGS.drop_factor,
        momentum=FLAGS.momentum,
        weight_decay=FLAGS.weight_decay,
        augment=FLAGS.augment,
        mean=_numbers("mean"),
        std=_numbers("std"),
        ema=FLAGS.ema,
        early_stopping=FLAGS.early_stopping,
        rho_attack=ATTACKS.parse(FLAGS.rho_attack) if FLAGS.rho_attack else None,
        validate_every=FLAGS.validate_every,
        validation_limit=FLAGS.validation_limit,
        precision=FLAGS.precision,
        deterministic=FLAGS.deterministic,
        seed=FLAGS.seed,
        published=FLAGS.published,
    )


def evaluation_options() -> EvaluationOptions:
    """What the flags say of an evaluation."""
    from l2p_tf.attacks import ATTACKS
    from l2p_tf.evaluation.evaluate import EvaluationOptions

    return EvaluationOptions(
        attacks=tuple(map(_found, ATTACKS.parse_list(FLAGS.attacks))),
        split=FLAGS.split,
        limit=FLAGS.limit,
        repeats=FLAGS.repeats,
        batch_size=FLAGS.attack_batch_size,
        seed=FLAGS.seed,
        jit_compile=jit_compile(),
        prediction_draws=FLAGS.prediction_draws,
    )


def _found(attack: Attack) -> Attack:
    """An attack with the folder of the run it needs, where that was given by its name in RUN_DIR."""
    run = getattr(attack, "run", "")
    return attack.replace(run=str(run_dir() / run)) if re.fullmatch(r"[\w.-]+", run) else attack


def matched() -> dict[str, Any]:
    """What the flags say of a comparison at matched clean accuracy."""
    from l2p_tf.reporting.measured import Match

    wanted = {"match": _numbers("match"), "match_tolerance": FLAGS.match_tolerance}
    Match(*wanted.values())  # So that bad ones are told before the work.
    return wanted


def certification_options() -> CertificationOptions | None:
    """What the flags say of a certification; None without --certify."""
    if not FLAGS.certify:
        return None
    from l2p_tf.certification.base import CERTIFICATES
    from l2p_tf.certification.run import CertificationOptions

    return CertificationOptions(
        certificates=tuple(CERTIFICATES.parse_list(FLAGS.certify)),
        split=FLAGS.split,
        limit=FLAGS.limit,
        batch_size=FLAGS.attack_batch_size,
        seed=FLAGS.seed,
        jit_compile=jit_compile(),
    )


def check_options() -> CheckOptions | None:
    """What the flags say of the checks for gradient masking; None without --checks."""
    if not FLAGS.checks:
        return None
    from l2p_tf.evaluation.battery import CheckOptions

    return CheckOptions(
        count=FLAGS.checks,
        epsilon=FLAGS.checks_epsilon,
        split=FLAGS.split,
        batch_size=FLAGS.attack_batch_size,
        seed=FLAGS.seed,
        jit_compile=jit_compile(),
        prediction_draws=FLAGS.prediction_draws,
    )


def backends() -> list[str]:
    """--backend, each once."""
    names = list(dict.fromkeys(name.strip() for name in FLAGS.backend if name.strip())) or ["l2p_tf"]
    for name in names:
        if name not in ("l2p_tf", "cleverhans"):
            raise UserError(f"`--backend` should be l2p_tf, cleverhans or both. Received: {name!r}")
    return names


def checkpoints() -> list[str]:
    """--checkpoint, each once."""
    names = list(dict.fromkeys(name.strip() for name in FLAGS.checkpoint if name.strip())) or ["best"]
    for name in names:
        if name not in ("best", "last"):
            raise UserError(f"`--checkpoint` should be best, last or both. Received: {name!r}")
    return names


def check_attacks() -> None:
    """UserError where an attack, or the way to run it, is bad; before anything is done."""
    from l2p_tf.evaluation.cleverhans import backend

    options = evaluation_options()
    checkpoints()
    check_options()
    for name in backends():
        backend(name, options.attacks)


def transfer_sources(known: list[str]) -> list[str]:
    """--transfer, with `all` spelled out; `known` are the runs there are."""
    wanted = [name.strip() for name in FLAGS.transfer if name.strip()]
    return list(dict.fromkeys(name for part in wanted for name in (known if part == "all" else [part])))


def checked_name() -> str:
    """--name, which becomes a folder."""
    check_name(FLAGS.name, "--name")
    return str(FLAGS.name)


def _epochs(name: str) -> tuple[int, ...]:
    numbers = _numbers(name)
    if any(number != int(number) for number in numbers):
        raise UserError(f"`--{name}` should be whole numbers. Received: {FLAGS[name].value}")
    return tuple(int(number) for number in numbers)


def _numbers(name: str) -> tuple[float, ...]:
    from l2p_tf.registry import parse_number

    return tuple(parse_number(text) for text in FLAGS[name].value or () if text.strip())
