"""A battery of small attacks that reveals signs of gradient masking in a model."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from l2p_tf import artifacts, inference
from l2p_tf.attacks.base import Attack
from l2p_tf.attacks.fgsm import FGSM
from l2p_tf.attacks.noise import Noise
from l2p_tf.attacks.pgd import PGD
from l2p_tf.attacks.square import Square
from l2p_tf.evaluation.chunked import Arrays, ChunkedEvaluation, answers_to, passes
from l2p_tf.evaluation.evaluate import PARTS
from l2p_tf.evaluation.masking import gradients, record, rules
from l2p_tf.evaluation.masking.record import Finding
from l2p_tf.evaluation.masking.rules import Trial
from l2p_tf.evaluation.options import CheckOptions
from l2p_tf.evaluation.records import CLEAN
from l2p_tf.layers.noise import is_randomized, without_noise
from l2p_tf.progress import bar
from l2p_tf.radii import any_radius
from l2p_tf.types import UserError

DEFAULT_EPSILON = 8 / 255
_UNKNOWN_RADIUS = "`checks_epsilon` should be given, or the radius of a derived run needs the training"
_STEPS, _DRAWS = 20, 4
_SHORT = 0.1
"""Length of short steps, as a share of epsilon."""
_BLIND_DRAWS, _AGAIN = 1, 2
"""Separate draws for gradient-free attacks and for evaluating PGD's images again: an image that survived the draws PGD
was scored on may be fooled on others."""
_QUIET, _QUIET_QUERIES = " without noise", 500


def resolved(options: CheckOptions, trained: artifacts.Artifact) -> CheckOptions:
    """Fills in the training's epsilon and its defense's prediction draws if not given."""
    epsilon = training_epsilon(trained) if options.epsilon is None else options.epsilon
    draws = options.prediction_draws or int(trained.manifest["notes"].get("prediction_draws", 1))
    return dataclasses.replace(options, epsilon=epsilon, prediction_draws=draws)


def request_of(options: CheckOptions) -> dict[str, Any]:
    """JSON-compatible values of resolved options that determine the results."""
    own = ("count", "epsilon", "split", "batch_size", "seed", "prediction_draws")
    assert options.epsilon is not None
    battery = {draws: [r.attack.spec for r in rounds(options.epsilon, draws) if r.attack] for draws in (1, _DRAWS)}
    return {
        **{key: getattr(options, key) for key in own},
        "attacks": battery[1],
        "attacks_randomized": battery[_DRAWS],
        "level": rules.LEVEL,
        **({"bpda": options.bpda} if options.bpda else {}),
    }


def training_epsilon(trained: artifacts.Artifact) -> float:
    """Returns the l_inf radius of a training's own attack; 8/255 if it has none.

    For a run derived from another's classifier, that of the original training.

    Raises:
      UserError: the original training is missing or has changed.
    """
    while "source" in trained.manifest["inputs"]:
        folder = trained.manifest["lineage"]["source"]["path"]
        try:
            source = artifacts.read(folder, "train", verify=False)
        except UserError as error:
            raise UserError(f"{_UNKNOWN_RADIUS} {folder!r} to be what it was made from: {error}") from error
        if source.fingerprint != trained.manifest["inputs"]["source"]:
            raise UserError(f"{_UNKNOWN_RADIUS} {folder!r} to be what it was made from. Received: another training")
        trained = source
    options = trained.options.get("defense_options", {})
    epsilon, norm = options.get("epsilon"), options.get("norm", "linf")
    known = isinstance(epsilon, int | float) and norm == "linf" and 0 < epsilon < 1
    return float(epsilon) if known else DEFAULT_EPSILON


@dataclasses.dataclass(frozen=True)
class Round:
    """One attack of the battery, or none.

    Attributes:
      part: its role in the battery.
      attack: the attack; None for clean images.
      repeat: selects its draws.
      quiet: run on the model without its noise; the result is then evaluated on the model with its noise.
    """

    part: str
    attack: Attack | None
    repeat: int = 0
    quiet: bool = False

    @property
    def label(self) -> str:
        """Short name of the attack."""
        return (self.attack.label if self.attack else CLEAN) + _QUIET * self.quiet


@any_radius()
def rounds(epsilon: float, draws: int) -> list[Round]:
    """Returns the attacks. Several differ in radius only, which needs no new compilation.

    Args:
      epsilon: l_inf radius, in pixels of [0, 1].
      draws: draws that gradients and scores are averaged over; 1 for a model without noise.
    """
    pgd = PGD(epsilon=epsilon, steps=_STEPS, draws=draws)
    # Evaluations with noise are expensive, so a search gets fewer of them on a randomized model.
    restarts, queries, looks, points = (3, 500, 1, 100) if draws == 1 else (2, 200, 2, 10)
    square = Square(epsilon=epsilon, queries=queries, draws=looks)
    return [
        Round("white", pgd.replace(restarts=restarts)),
        Round("one_step", FGSM(epsilon=epsilon, draws=draws)),
        *(Round(part, pgd.replace(epsilon=radius)) for part, radius in ladder(epsilon).items()),
        *([Round("single", pgd.replace(draws=1))] if draws > 1 else []),
        Round("square", square, _BLIND_DRAWS),
        # Noise hides the direction of scores from a search; without noise it is visible.
        *([Round("quiet", square.replace(queries=_QUIET_QUERIES, draws=1), quiet=True)] if draws > 1 else []),
        Round("random", Noise(epsilon=epsilon, restarts=points), _BLIND_DRAWS),
    ]


def ladder(epsilon: float) -> dict[str, float]:
    """Returns the radii of the budget check in increasing order: epsilon / 2, epsilon, 2 epsilon, and 1."""
    radii = {"half": epsilon / 2, "same": epsilon, "double": 2 * epsilon, "free": 1.0}
    return {part: radius for part, radius in radii.items() if radius < 1 or part == "free"}


class Battery:
    """Runs the attacks on one model in turn; finished results are kept in a folder.

    Attributes:
      right: bool (count,), which images the model classifies correctly; the checks use these.
      around: the arrays of `gradients.slopes`, and the rise of the loss from the image to PGD's result (`attacked`), by
      a short step along the gradient's sign (`stepped`), and by a random step of the same size (`strayed`).
      trials: results of the attacks on those images, by role; empty if gradients are not finite.
      done: each attack (clean images first), the rows of its images, and its results.
    """

    def __init__(
        self, model: keras.Model, options: CheckOptions, images: np.ndarray, labels: np.ndarray, folder: pathlib.Path,
        name: str = "model",
    ) -> None:  # fmt: skip
        assert options.epsilon is not None
        self.epsilon, self.parts, self.name = options.epsilon, folder / PARTS, name
        self.model, self.images = inference.prepared(model, images)
        self.labels = labels.astype(np.int32)
        self.randomized = is_randomized(self.model)
        self.draws = _DRAWS if self.randomized else 1
        samples = (options.prediction_draws or 1) if self.randomized else 1
        self.options = dataclasses.replace(options, prediction_draws=samples)
        self.done: list[tuple[Round, np.ndarray, Arrays]] = []
        self.around: Arrays = {}
        self.trials: dict[str, Trial] = {}
        (folder / "arrays").mkdir(exist_ok=True)
        self.parts.mkdir(exist_ok=True)

    def run(self) -> list[Finding]:
        """Runs everything; returns one finding per check."""
        all_rows = np.arange(len(self.images))
        self.right = self._attack(Round(CLEAN, None), all_rows)[0]["wrong"] < 0.5
        self.around = gradients.slopes(self.model, self.images, self.labels, self.epsilon, **self._how())
        direction = self.around.pop("direction")
        attacked, robust = self.images, all_rows
        # Attacks that follow non-finite gradients produce non-finite images.
        for entry in () if self.around["infinite"].any() else rounds(self.epsilon, self.draws):
            rows = robust if entry.part == "random" else all_rows
            fooled, adversarial = np.zeros(len(all_rows), bool), self.images
            if len(rows):
                values, adversarial = self._attack(entry, rows)
                fooled[rows] = values["wrong"] >= 0.5
            again = None
            if entry.part == "white":
                attacked, robust = adversarial, np.flatnonzero(~fooled)
                if self.randomized:
                    again = (self._answers(adversarial, self.labels, _AGAIN)["wrong"] >= 0.5)[self.right]
            self.trials[entry.part] = Trial(entry.label, fooled[self.right], again, self.randomized)
        self.around |= self._rises(attacked, direction)
        around = {name: values[self.right] for name, values in self.around.items()}
        return _findings(self.trials, around, self.epsilon, self.randomized)

    def _attack(self, entry: Round, rows: np.ndarray) -> tuple[Arrays, np.ndarray]:
        """Runs one attack on some images; returns arrays of `PER_EXAMPLE`, and the adversarial images."""
        labels = self.labels[rows]
        job = ChunkedEvaluation(self.options, self.model, entry.attack, self.images[rows], labels, self.parts)
        radius = f", \N{GREEK SMALL LETTER EPSILON} {entry.attack.facts()['epsilon']:.4g}" if entry.attack else ""
        with (
            without_noise(self.model) if entry.quiet else contextlib.nullcontext(),
            bar(f"{self.name}: checks, {entry.label}{radius}", len(rows), "images") as advance,
        ):
            values, adversarial = job.run(len(self.done), entry.repeat, advance)
        if entry.quiet:
            values |= self._answers(adversarial, labels, _BLIND_DRAWS)
        self.done.append((entry, rows, values))
        return values, adversarial

    def _answers(self, images: np.ndarray, labels: np.ndarray, draws: int) -> Arrays:
        """Answers on draws of their own."""
        seed, samples = int(inference.seed_pair(self.options.seed, draws)[0]), self.options.prediction_draws
        return answers_to(self.model, images, labels, seed, samples_per_prediction=samples or 1, **passes(self.options))

    def _rises(self, attacked: np.ndarray, direction: np.ndarray) -> Arrays:
        rng = np.random.default_rng(inference.seed_pair(self.options.seed, _AGAIN, 1).view(np.uint32))
        random = rng.choice(np.array([-1, 1], np.float32), self.images.shape)
        step = np.float32(_SHORT * self.epsilon)

        def height(images: np.ndarray) -> np.ndarray:
            return gradients.margins(self.model, images, self.labels, **self._how())

        before = height(self.images)
        stepped, strayed = (height((self.images + step * way).clip(0, 1)) for way in (direction, random))
        return {"attacked": height(attacked) - before, "stepped": stepped - before, "strayed": strayed - before}

    def _how(self) -> dict[str, Any]:
        seed = int(inference.seed_pair(self.options.seed, _AGAIN, 2)[0])
        return {"draws": self.draws, "seed": seed, **passes(self.options)}


def _findings(trials: Mapping[str, Trial], around: Arrays, epsilon: float, randomized: bool) -> list[Finding]:
    """Returns one finding per check; arrays and trials cover the images that the model classifies correctly."""
    findings = {"gradients": rules.gradients(around["zero"] | around["tiny"] | around["infinite"])}
    if "white" in trials:
        white, same = trials["white"], trials["same"]
        radii = ladder(epsilon).items()
        rungs = [Trial(f"\N{GREEK SMALL LETTER EPSILON} {radius:.4g}", trials[part].fooled) for part, radius in radii]
        findings |= {
            "one_step": rules.one_step(trials["one_step"], same),
            "black_box": rules.black_box([trials[part] for part in ("square", "quiet") if part in trials], white),
            "unbounded": rules.unbounded(trials["free"]),
            "random_search": rules.random_search(trials["random"], white),
            "budget": rules.budget(rungs),
            "loss": rules.loss(around["attacked"], around["stepped"], around["strayed"]),
        }
        if "single" in trials:
            findings["eot"] = rules.eot(trials["single"], same)
    if not randomized:
        findings["eot"] = Finding("eot", record.NOT_NEEDED, reason="no noise")
    reasons = dict.fromkeys(rules.CHECKS, "gradients are not finite") | {"transfer": ""}
    return [findings.get(check) or record.unmeasured(check, reasons[check]) for check in rules.CHECKS]
