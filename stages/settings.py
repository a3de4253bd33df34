"""Values of flags, and the trainings, evaluations, checks and certificates they describe."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags
from absl.testing import flagsaver

from l2p_tf.environment import user_path
from l2p_tf.files import check_name
from l2p_tf.options import StageOptions, declared, flag_of
from l2p_tf.registry import parse_number
from l2p_tf.types import UserError
from stages import common, configs, definitions

if TYPE_CHECKING:
    from l2p_tf.attacks.base import Attack
    from l2p_tf.certification.options import CertificationOptions
    from l2p_tf.defenses.base import Defense
    from l2p_tf.devices import Devices
    from l2p_tf.evaluation.gate import Bound
    from l2p_tf.evaluation.options import CheckOptions, EvaluationOptions
    from l2p_tf.fitting.options import TrainOptions
    from l2p_tf.imported.options import ImportOptions
    from l2p_tf.server.options import ServeOptions

FLAGS = flags.FLAGS
_NAMES = [name for names in definitions.TOPICS.values() for name in names]


class Settings:
    """The values of all flags at one time, as attributes of the same names.

    Attributes:
      given: names of the flags that were given, including those in flag files.
    """

    def __init__(self) -> None:
        self._values = {name: FLAGS[name].value for name in _NAMES}
        self.given = [name for name in _NAMES if FLAGS[name].present]
        self._arguments = {name: FLAGS[name].serialize().splitlines() for name in self.given}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._values:
            raise AttributeError(name)
        return self._values[name]

    def arguments(self, but: Iterable[str] = ()) -> list[str]:
        """Returns the given flags as on a command line; `but` names those to leave out."""
        return [line for name in self.given if name not in but for line in self._arguments[name]]

    def _values_of(self, options: type[StageOptions]) -> dict[str, Any]:
        """Returns the flag values of the options declared by a dataclass."""
        values: dict[str, Any] = {}
        for field in declared(options):
            value: Any = self._values[flag_of(field)]
            if isinstance(value, list):
                value = tuple(parse_number(text) for text in value if text.strip())
            values[field.name] = value
        return values

    def require(self, name: str) -> Any:
        """Returns the value of a flag; raises UserError if it was not given."""
        value = self._values[name]
        if value in (None, ""):
            raise UserError(f"`--{name}` should be given. It is: {' '.join(str(FLAGS[name].help).split())}")
        return value

    @functools.cached_property
    def folder(self) -> pathlib.Path:
        """--run_dir."""
        return user_path(self.require("run_dir"))

    @property
    def jit_compile(self) -> bool | None:
        """--jit."""
        return {"auto": None, "on": True, "off": False}[self.jit]

    @functools.cached_property
    def devices(self) -> Devices:
        """--strategy."""
        from l2p_tf.devices import open_devices

        return open_devices(self.strategy)

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes; does not load TensorFlow if there is only one."""
        return not os.environ.get("TF_CONFIG") or self.devices.is_chief

    @property
    def shared(self) -> bool:
        """Whether other processes take part in evaluations: --share, or other workers."""
        return self.share or self.devices.workers > 1

    @functools.cached_property
    def trainings(self) -> dict[str, TrainOptions]:
        """The trainings by name: one per defense of --defense, or the points of a --sweep."""
        return self._family(self.run_name() if self.name else "")

    @functools.cached_property
    def imports(self) -> dict[str, ImportOptions]:
        """The models of --classifiers by name, or that of --model_file."""
        if not self.classifiers.strip():
            name = self.run_name() if self.name else _stem(self.require("model_file"))
            return {name: self._import(name, self.model_file)}
        if self.model_file:
            raise UserError(
                "`--model_file` names one model for stages.importer; --classifiers several. Give one of them."
            )
        imports: dict[str, ImportOptions] = {}
        for part in self.classifiers.split(";"):
            name, sign, source = (text.strip() for text in part.partition("="))
            if not part.strip():
                continue
            if not sign or not source or not re.fullmatch(r"[\w.-]+", name) or name in imports:
                raise UserError(
                    f"`--classifiers` should be NAME=MODEL, several of other names separated by `;`. Received: {part!r}"
                )
            imports[name] = self._import(name, source)
        return imports

    def _import(self, name: str, source: str) -> ImportOptions:
        from l2p_tf.imported.options import ImportOptions

        return ImportOptions(**{**self._values_of(ImportOptions), "name": name, "model_file": source})

    @property
    def shard(self) -> dict[str, TrainOptions]:
        """The runs of --sweep_shard."""
        from l2p_tf.fitting.sweep import share

        return {options.name: options for options in share(list(self.trainings.values()), self.sweep_shard)}

    @property
    def one_run(self) -> TrainOptions:
        """The training of a stage for a single run; --name selects one of a sweep."""
        name = self.run_name() if self.sweep and self.name else ""
        named = self._family("") if name else self.trainings
        if name:
            if name not in named:
                raise UserError(f"`--name` should be a run of the sweep: {', '.join(named)}. Received: {name!r}")
            return named[name]
        if len(named) > 1:
            raise UserError(
                f"The flags describe {len(named)} runs, which only the pipeline takes: {', '.join(named)}. "
                + ("`--name` picks one." if self.sweep else "`--defense` should name one defense here.")
            )
        return next(iter(named.values()))

    def _family(self, name: str) -> dict[str, TrainOptions]:
        """Returns the trainings by name; those of one defense under a given name, if there is one."""
        from l2p_tf.fitting.options import TrainOptions
        from l2p_tf.fitting.sweep import parse_axis, points

        if self.published:
            from l2p_tf.experiments import printed

            printed.target(self.published)
        values = self._values_of(TrainOptions)
        base = [TrainOptions(name=run, defense=defense, **values) for run, defense in self._defenses(name).items()]
        base = [_with_folder(options, self.folder, self.noise_after) for options in base]
        return {options.name: options for options in points(base, [parse_axis(text) for text in self.sweep])}

    def _defenses(self, name: str) -> dict[str, Defense]:
        from l2p_tf.defenses import DEFENSES

        defenses = DEFENSES.parse_list(self.require("defense"))
        if name:
            if len(defenses) > 1:
                raise UserError(f"`--name` names one run; --defense holds {len(defenses)}. Received: {name!r}")
            return {name: defenses[0]}
        named: dict[str, Defense] = {}
        for defense in defenses:
            base: str = defense.name  # type: ignore[attr-defined]
            count = sum(known == base or known.startswith(f"{base}-") for known in named)
            named[f"{base}-{count + 1}" if count else base] = defense
        return named

    @functools.cached_property
    def evaluation(self) -> EvaluationOptions:
        """How models are attacked."""
        from l2p_tf.attacks.corruption import corruptions
        from l2p_tf.evaluation.options import EvaluationOptions

        names = [name.strip() for name in self.corruptions if name.strip()]
        options = EvaluationOptions(**self._values_of(EvaluationOptions), jit_compile=self.jit_compile)
        attacks = tuple(_in_folder(attack, self.folder) for attack in options.attacks)
        attacks += corruptions(names, self.severity_levels)
        return dataclasses.replace(options, attacks=attacks)

    @property
    def severity_levels(self) -> list[int]:
        """--severities without duplicates."""
        return [int(text) for text in _each(self.severities, "severities", tuple("12345"), "some of 1, 2, 3, 4, 5")]

    @property
    def serving(self) -> ServeOptions:
        """How an export is served."""
        from l2p_tf.server.options import ServeOptions

        return ServeOptions(**self._values_of(ServeOptions))

    @property
    def certification(self) -> CertificationOptions | None:
        """How models are certified; None without --certify."""
        from l2p_tf.certification.options import CertificationOptions

        if not self.certify:
            return None
        return CertificationOptions(**self._values_of(CertificationOptions), jit_compile=self.jit_compile)

    @property
    def masking_checks(self) -> CheckOptions | None:
        """How models are checked for gradient masking; None with --checks=0."""
        from l2p_tf.evaluation.options import CheckOptions

        if not self.checks:
            return None
        return CheckOptions(**self._values_of(CheckOptions), jit_compile=self.jit_compile)

    @property
    def matched(self) -> dict[str, Any]:
        """Clean accuracies at which methods are compared, as arguments of `report.make`."""
        from l2p_tf.reporting.measured import Match

        wanted = {
            "match": tuple(parse_number(text) for text in self.match if text.strip()),
            "match_tolerance": self.match_tolerance,
        }
        Match(*wanted.values())  # Report bad values before the work.
        return wanted

    @property
    def backends(self) -> list[str]:
        """--backend without duplicates."""
        from l2p_tf.evaluation.options import BACKENDS

        return _each(self.backend, "backend", BACKENDS, "some of l2p_tf, cleverhans, foolbox, art")

    @property
    def checkpoints(self) -> list[str]:
        """--checkpoint without duplicates."""
        return _each(self.checkpoint, "checkpoint", ("best", "last"), "best, last or both")

    def transfer_sources(self, known: Iterable[str]) -> list[str]:
        """Returns --transfer with `all` expanded to the `known` runs."""
        wanted = [name.strip() for name in self.transfer if name.strip()]
        return list(dict.fromkeys(name for part in wanted for name in (known if part == "all" else [part])))

    def run_name(self) -> str:
        """Returns --name, checked because it becomes a folder."""
        check_name(self.name, "--name")
        return str(self.name)

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """--require."""
        from l2p_tf.evaluation.gate import parse_bounds

        return parse_bounds(str(self._values["require"]))

    def check(self) -> None:
        """Raises UserError for invalid attacks or related flags, before anything is done."""
        from l2p_tf.evaluation.backends import backend

        attacks = self.evaluation.attacks
        for name in self.backends:
            backend(name, attacks)
        _ = (self.bounds, self.checkpoints, self.masking_checks, self.certification, self.matched)


def read(arguments: Sequence[str] = ()) -> Settings:
    """Parses arguments, including flag files; without any, returns the flags of the command line.

    Raises:
      UserError: they cannot be parsed.
    """
    if not arguments:
        return Settings()
    with flagsaver.flagsaver():
        for name in _NAMES:
            FLAGS[name].unparse()
        try:
            FLAGS(["stage", *configs.expanded(arguments)])
        except (flags.Error, ValueError, OSError) as error:
            raise UserError(str(error).removeprefix("ERROR:: ")) from error
        return Settings()


def start(settings: Settings) -> None:
    """Loads TensorFlow, with the settings that must precede its first operation."""
    common.load_tensorflow()
    if settings.deterministic:
        from l2p_tf.fitting.run import make_deterministic

        make_deterministic()
    _ = settings.devices


def _with_folder(options: TrainOptions, folder: pathlib.Path, noise_after: Sequence[str]) -> TrainOptions:
    """Resolves runs given by their names in RUN_DIR to folders, and applies --noise_after."""
    model, attack = options.model, _in_folder(options.validation_attack, folder)
    path = getattr(model, "path", "")
    if (folder / path / "train").is_dir() and re.fullmatch(r"[\w.-]+", path):
        model = model.replace(path=str(folder / path))
    if noise_after:
        if not hasattr(model, "noise_after"):
            raise UserError("`--noise_after` is for --model='file(path=...)': other networks have places of their own.")
        model = model.replace(noise_after=tuple(noise_after))
    return dataclasses.replace(options, model=model, validation_attack=attack)


def _in_folder(attack: Attack, folder: pathlib.Path) -> Attack:
    """Resolves the run that an attack needs, if given by its name in RUN_DIR, to its folder."""
    run = getattr(attack, "run", "")
    return attack.replace(run=str(folder / run)) if re.fullmatch(r"[\w.-]+", run) else attack


def _stem(source: str) -> str:
    """Derives the name of an unnamed model's run from its file or network."""
    network = re.search(r"name\s*=\s*['\"]?(\w+)", source)
    name = network.group(1) if network else pathlib.PurePath(source).stem
    return re.sub(r"[^\w.-]+", "_", name)


def _each(values: Sequence[str], flag: str, accepted: Sequence[str], text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in values if name.strip())) or [accepted[0]]
    for name in names:
        if name not in accepted:
            raise UserError(f"`--{flag}` should be {text}. Received: {name!r}")
    return names
