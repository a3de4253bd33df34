"""Base of attacks from other libraries: class lookup by name, options, and execution."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import difflib
import functools
import importlib
import inspect
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from l2p_tf import inference
from l2p_tf.attacks.base import AttackRunner, SingleAttack
from l2p_tf.attacks.criterion import TARGETS
from l2p_tf.attacks.gradient import answer
from l2p_tf.attacks.projection import norms
from l2p_tf.layers.noise import reseed, restore_seeds
from l2p_tf.options import further, option
from l2p_tf.radii import check_radius
from l2p_tf.types import Interrupted, Norm, UserError

_EPSILON = 8 / 255
_SLACK = 1e-6
"""Tolerance for rounding at the edge of the ball."""

_UNSEEDED = "RandomState"
_KINDS: tuple[Any, ...] = (bool, int | float, str, tuple)
"""An option must have the first of these types that its default has."""


@dataclasses.dataclass(frozen=True)
class WrappedAttack(SingleAttack):
    """Base of the attacks that run a class of another library, given by its name with its own options.

    An option of the class that clashes with one of these gets a trailing underscore: `epsilon_=0.01`. A class that
    minimizes the norm does so without a limit if no epsilon is given. Images are clipped to [0, 1], and rejected
    outside the ball.

    Class attributes:
      LIBRARY: official name of the library.
      PACKAGE: its name on PyPI.
      MODULE: the module of its attacks.
      HIDDEN: options of its classes that are set here, or that a spec cannot express.

    Raises:
      UserError: the library is not installed, has no such class, or the class has no such option.
    """

    attack: str = option("", "name of the library's class; has to be given")
    epsilon: float | None = option(
        None, "radius of the ball; None takes 8/255 where the class needs one, else no limit", low=0
    )
    norm: str = option("auto", "norm of the ball; auto: that of the class", choices=("auto", "linf", "l2", "l1", "l0"))
    target: str = option("none", "class to arrive at; none: any class but the label", choices=TARGETS)
    keywords: tuple[tuple[str, Any], ...] = further("options of the library's class")

    LIBRARY: ClassVar[str]
    PACKAGE: ClassVar[str]
    MODULE: ClassVar[str]
    HIDDEN: ClassVar[frozenset[str]]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "norm", str(self.norm))
        for name, value in self.keywords:
            if name not in self.accepted:
                own = ("epsilon", "norm", "target")
                near = difflib.get_close_matches(name, [*self.accepted, *own], n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise UserError(
                    f"{self.LIBRARY}'s {self.attack} takes no option {name!r} here.{hint} Those it takes: "
                    f"{', '.join(self.accepted) or 'none'}."
                )
            usual = self.accepted[name].default
            kind = next((kind for kind in _KINDS if isinstance(usual, kind)), object)
            if value is not None and not isinstance(value, kind):
                raise UserError(
                    f"`{name}` of {self.LIBRARY}'s {self.attack} should be like its default, {usual!r}. "
                    f"Received: {value!r}"
                )
        needed = [name for name, known in self.accepted.items() if known.default is known.empty]
        if lacking := [name for name in needed if name not in dict(self.keywords)]:
            raise UserError(f"{self.LIBRARY}'s {self.attack} needs the options {', '.join(lacking)}.")
        if self.norm != "auto" and self.norm not in self.norms:
            accepted = " or ".join(self.norms) or "left out: it has no ball"
            raise UserError(f"`norm` of {self.LIBRARY}'s {self.attack} should be {accepted}. Received: {self.norm!r}")
        if self.epsilon is not None and self.ball is None:
            raise UserError(
                f"`epsilon` of {self.LIBRARY}'s {self.attack} should be left out, as its perturbations lie in no ball. "
                f"Received: {self.epsilon:g}"
            )
        if self.radius is not None and self.ball == "linf":
            check_radius(type(self).__name__, "epsilon", self.radius, Norm.LINF, ())

    @functools.cached_property
    def kind(self) -> type:
        """The library's class."""
        classes = self.classes(library(self.MODULE, self.LIBRARY, self.PACKAGE))
        if self.attack not in classes:
            near = difflib.get_close_matches(self.attack, classes, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UserError(
                f"`attack` should name an attack of {self.LIBRARY}.{hint} Received: {self.attack!r}. "
                f"Known: {', '.join(sorted(classes))}."
            )
        return classes[self.attack]

    @functools.cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """Parameters of the class's constructor."""
        return inspect.signature(self.kind).parameters

    @functools.cached_property
    def accepted(self) -> dict[str, inspect.Parameter]:
        """Parameters the user may set, by their names here."""
        own = {field.name for field in dataclasses.fields(self)}
        return {
            f"{name}_" if name in own else name: known
            for name, known in self.parameters.items()
            if name not in self.hidden
        }

    @property
    def hidden(self) -> frozenset[str]:
        """Parameters of the class that the user cannot set."""
        return self.HIDDEN

    @property
    def given(self) -> dict[str, Any]:
        """The given options, by the class's own names."""
        return {self.accepted[name].name: value for name, value in self.keywords}

    @classmethod
    @abc.abstractmethod
    def classes(cls, module: ModuleType) -> dict[str, type]:
        """Returns the attacks of the library by name."""

    @property
    @abc.abstractmethod
    def norms(self) -> tuple[str, ...]:
        """Norms in which its perturbations may be bounded, that of `auto` first; empty for none."""

    @property
    @abc.abstractmethod
    def is_bounded(self) -> bool:
        """Whether the class requires a radius."""

    @abc.abstractmethod
    def find(self, runner: AttackRunner, asked: AskedModel, rows: np.ndarray) -> np.ndarray:
        """Runs the library's attack on the images `rows` of a runner; the result may exceed the box or the ball.

        `asked` is the model to attack, which counts its passes.
        """

    def together(self, runner: AttackRunner, count: int) -> int:
        """Returns how many of `count` images to pass at once."""
        del count
        return runner.batch_size

    @property
    def ball(self) -> str | None:
        """Norm of the ball, or None."""
        return self.norm if self.norm != "auto" else next(iter(self.norms), None)

    @property
    def radius(self) -> float | None:
        """Radius of the ball; None without a ball or a limit."""
        return _EPSILON if self.epsilon is None and self.ball and self.is_bounded else self.epsilon

    @property
    def steps(self) -> int:
        """Number of steps according to the options."""
        values = {name: known.default for name, known in self.parameters.items()} | self.given
        counts = [values[name] for name in ("steps", "max_iter", "nb_steps") if isinstance(values.get(name), int)]
        return max(0, counts[0]) if counts else 1

    @property
    def label(self) -> str:
        """Label such as `BoundaryAttack`."""
        return f"{self.attack} to {self.target}" if self.targeted else self.attack

    @property
    def work(self) -> float:
        """The number of steps, because the cost of a step is unknown."""
        return float(self.steps)

    def facts(self) -> dict[str, Any]:
        """Norm and radius are those of the ball."""
        return {**super().facts(), "norm": self.ball, "epsilon": self.radius}

    def check(self, model: keras.Model) -> None:
        """Raises UserError if the radius does not fit the images."""
        super().check(model)
        if self.radius is not None and self.ball in ("l1", "l2"):
            check_radius(type(self).__name__, "epsilon", self.radius, Norm(self.ball), model.input_shape[1:])

    def attempt(self, runner: AttackRunner, number: int, start: int, rows: np.ndarray) -> np.ndarray:
        """Runs batch by batch, and saves each finished batch."""
        key, images = f"{number:02d}-{start:03d}", runner.images[rows]
        adversarial, passes, done = images.copy(), np.zeros((2, len(rows)), np.int32), 0
        saved = None if runner.store is None else runner.store.load(key)
        if saved is not None and np.array_equal(saved["rows"], rows):
            adversarial, passes, done = saved["found"], saved["passes"], int(saved["done"])
        asked = AskedModel(runner.model)
        while done < len(rows):
            part = slice(done, done + self.together(runner, len(rows)))
            asked.gradients = asked.forwards = 0
            with _seeded(runner.model, inference.seed_pair(runner.seed, number + 1, start + 1, done + 1)):
                adversarial[part] = self._inside(self._found(runner, asked, rows[part]), images[part])
            count = len(rows[part])
            passes[:, part] = [[-(-asked.gradients // count)], [-(-asked.forwards // count)]]
            done = done + count
            if runner.store is not None:
                place = {"rows": rows, "done": np.array(done), "found": adversarial, "passes": passes}
                runner.store.save(key, place)
            runner.tell(int((~runner.is_adversarial).sum()), self.work * done / len(rows))
        runner.gradients[rows] += passes[0]
        runner.forwards[rows] += passes[1]
        return adversarial

    def _found(self, runner: AttackRunner, asked: AskedModel, rows: np.ndarray) -> np.ndarray:
        with self.told():
            return self.find(runner, asked, rows)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Turns exceptions of the library into UserErrors that name it."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except (UserError, Interrupted):
            raise
        except Exception as error:
            why = " ".join(str(error).split()) or "it does not say why"
            raise UserError(f"{self.spec} cannot be run: {type(error).__name__}: {why}") from error

    def _inside(self, candidates: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Clips images to [0, 1]; replaces those outside the ball or not finite by the originals."""
        candidates = np.clip(np.asarray(candidates, np.float32), 0.0, 1.0)
        valid = np.isfinite(candidates).all((1, 2, 3))
        if self.radius is not None:
            valid &= norms(candidates - images)[str(self.ball)] <= self.radius * (1 + _SLACK) + _SLACK
        return np.where(valid[:, None, None, None], candidates, images)


class AskedModel:
    """A classifier as other libraries call it: images, possibly float64, to logits. Counts its passes.

    Attributes:
      forwards: number of images predicted.
      gradients: number of images whose gradient was computed.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model, self.forwards, self.gradients = model, 0, 0
        run: Callable[..., Any] = tf.function(
            functools.partial(answer, model),
            input_signature=[tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)],
            autograph=False,
        )
        # As in `inference.compiled`, not tracked by Keras.
        self._run = vars(model).setdefault("_l2p_asked", run)

    def __call__(self, images: Any, training: bool = False) -> tf.Tensor:
        """Logits (count, classes), float32."""
        del training
        x = tf.cast(tf.convert_to_tensor(images), tf.float32)
        self.forwards += len(x)

        @tf.custom_gradient
        def counted(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            def back(up: tf.Tensor) -> tf.Tensor:
                self.gradients += len(x)
                return up

            return tf.identity(x), back

        return self._run(counted(x))


def library(module: str, name: str, package: str) -> ModuleType:
    """Imports a module of another library; raises UserError if it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Deprecated names in SciPy and NumPy.
            return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"{name} should be installed: pip install 'l2p_tf[peers]', or {package}. Import fails with: {error}"
        ) from error


@contextlib.contextmanager
def _seeded(model: keras.Model, pair: np.ndarray) -> Iterator[None]:
    """Derives all randomness from two integers: the model's noise and the generators that libraries use."""
    seed = int(pair.view(np.uint32)[0])
    states, usual = (np.random.get_state(), random.getstate()), np.random.RandomState

    class Seeded(usual):  # type: ignore[valid-type]
        """Seeds the generators that attacks create without a seed."""

        def __init__(self, own: Any = None) -> None:
            super().__init__(np.random.randint(2**31) if own is None else own)

    np.random.seed(seed)
    random.seed(seed)
    tf.random.set_seed(seed)
    former = reseed(model, tf.constant(pair))
    try:
        vars(np.random)[_UNSEEDED] = Seeded
        yield
    finally:
        vars(np.random)[_UNSEEDED] = usual
        restore_seeds(model, former)
        np.random.set_state(states[0])
        random.setstate(states[1])
