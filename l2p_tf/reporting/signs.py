"""The signs of gradient masking that ordinary attacks on a run tell, where no checks stage looked for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from l2p_tf.evaluation import masking
from l2p_tf.evaluation.masking import Finding, Trial
from l2p_tf.evaluation.records import CLEAN, Record
from l2p_tf.registry import parse_spec
from l2p_tf.reporting import text
from l2p_tf.reporting.arrays import read_arrays
from l2p_tf.reporting.families import family_of
from l2p_tf.reporting.runs import Evaluation, Run
from l2p_tf.reporting.transfer import WHITE_BOX, relation_of, source_name
from l2p_tf.types import UserError

_ONE_STEP = ("fgsm", "l2p_fgsm", "gen_fgm")
_ITERATIVE = ("pgd", "bim", "mim", "apgd", "l2p_pgd", "l2p_eot", "gen_mim")
_COMPOSED = ("autoattack", "worst_case")
_BLIND = ("square", "spsa", "zoo")
_RANDOM = ("noise",)

_MANY = 10
"""Steps, at least, that one step is held against."""

Place = tuple[str, str, str]
"""Weights, data set and split."""

Judged = tuple[str, Finding]
"""What was judged, be it the budget or the attack, and the finding."""


@dataclasses.dataclass(frozen=True)
class Attacks:
    """The attacks of one stage on one split, image by image.

    Attributes:
      evaluation: the stage.
      index: positions of the images in the split, (count,).
      right: bool (count,), which of them the model gets right; the checks judge these.
      records: the untargeted attacks of a given size, the first repeat of each.
      repeats: the second repeat by spec and backend, where there is one.
    """

    evaluation: Evaluation
    index: np.ndarray
    right: np.ndarray
    records: tuple[Record, ...]
    repeats: Mapping[tuple[str, str], Record]

    def trial(self, record: Record, label: str = "", blind: bool = False) -> Trial:
        """What an attack fooled.

        Of a randomized model a `blind` one is that of the second repeat, whose draws are not those that the first was
        scored on.
        """
        second = self.repeats.get((record.attack, record.backend))
        first = self._fooled(record)
        again = self._fooled(second) if record.randomized and second is not None else None
        label = label or text.attack_name(record)
        return Trial(label, again if blind and again is not None else first, again, record.randomized)

    def together(self, records: Sequence[Record]) -> Trial:
        """What any of several attacks fooled."""
        trials = [self.trial(record) for record in records]
        if len(trials) == 1:
            return trials[0]
        again = [trial.again for trial in trials if trial.again is not None]
        return Trial(
            f"any of {', '.join(trial.label for trial in trials)}", np.any([trial.fooled for trial in trials], 0),
            np.any(again, 0) if len(again) == len(trials) else None, any(trial.randomized for trial in trials),
        )  # fmt: skip

    def _fooled(self, record: Record) -> np.ndarray:
        return fooled(self.evaluation, record)[self.right]


def findings(run: Run, known: Mapping[str, Run]) -> dict[Place, list[Finding]]:
    """One finding for each check, by place; `known` are the report's runs by their keys.

    Raises:
      UserError: arrays cannot be read.
    """
    places: dict[Place, list[Attacks]] = {}
    for evaluation in run.evaluations:
        for attacks in _attacks(evaluation):
            first = attacks.records[0]
            places.setdefault((evaluation.checkpoint, first.dataset, first.split), []).append(attacks)
    made: dict[Place, list[Finding]] = {}
    for place, several in places.items():
        found = {check: [one for attacks in several for one in rule(attacks)] for check, rule in _RULES.items()}
        found["transfer"] = [*_transfer(run, place, several, known)]
        made[place] = [_worst(check, found.get(check, [])) for check in masking.CHECKS]
    return made


def fooled(evaluation: Evaluation, record: Record) -> np.ndarray:
    """Which images are misclassified: bool (count,)."""
    return ~read_arrays(evaluation, record, "correct")["correct"].astype(bool)


def _attacks(evaluation: Evaluation) -> Iterable[Attacks]:
    """The attacks of a stage, split by split; nothing where it holds no arrays."""
    places: dict[tuple[str, str], list[Record]] = {}
    for record in evaluation.records:
        if record.source is None and _has_arrays(evaluation, record):
            places.setdefault((record.dataset, record.split), []).append(record)
    for records in places.values():
        clean = next((r for r in records if r.attack == CLEAN and r.repeat == 0), None)
        tried = [r for r in records if r.attack != CLEAN and not text.minimal(r) and r.reached == r.count - r.correct]
        first = tuple(r for r in tried if r.repeat == 0)
        if clean and first:
            arrays = read_arrays(evaluation, clean, "index", "correct")
            second = {(r.attack, r.backend): r for r in tried if r.repeat == 1}
            yield Attacks(evaluation, arrays["index"], arrays["correct"].astype(bool), first, second)


def _has_arrays(evaluation: Evaluation, record: Record) -> bool:
    artifact = evaluation.artifact
    return artifact is not None and record.arrays in artifact.manifest.get("outputs", {})


def _one_step(attacks: Attacks) -> Iterable[Judged]:
    for one in _of(attacks, _ONE_STEP):
        many = [r for r in _of(attacks, _ITERATIVE + _COMPOSED) if _budget(r) == _budget(one) and r.draws >= one.draws]
        if many := [r for r in many if _is_thorough(attacks, r)]:
            yield _place(one), masking.one_step(attacks.trial(one), attacks.together(many))


def _black_box(attacks: Attacks) -> Iterable[Judged]:
    for blind in _budgets(_of(attacks, _BLIND)):
        if white := _white_box(attacks, blind[0]):
            yield _place(blind[0]), masking.black_box([attacks.trial(r, blind=True) for r in blind], white)


def _random_search(attacks: Attacks) -> Iterable[Judged]:
    for random in _of(attacks, _RANDOM):
        white = _white_box(attacks, random)
        if white and white.is_settled:
            yield _place(random), masking.random_search(attacks.trial(random, blind=True), white)


def _unbounded(attacks: Attacks) -> Iterable[Judged]:
    free = [r for r in _of(attacks, _ITERATIVE) if r.norm == "linf" and (r.epsilon or 0) >= 1]
    for same in _budgets([r for r in free if _is_thorough(attacks, r)]):
        yield _place(same[0]), masking.unbounded(attacks.together(same))


def _ladder(attacks: Attacks) -> Iterable[Judged]:
    families: dict[tuple[object, ...], dict[float, Record]] = {}
    for record in _of(attacks, _ITERATIVE):
        # The radius says nothing of an attack whose steps do not lead so far.
        if _reaches(attacks, record):
            families.setdefault(family_of(record), {}).setdefault(float(record.epsilon or 0), record)
    for radii in families.values():
        if len(radii) > 1:
            rungs = [
                attacks.trial(radii[radius], f"\N{GREEK SMALL LETTER EPSILON} {text.epsilon(radius)}")
                for radius in sorted(radii)
            ]
            yield text.attack_name(next(iter(radii.values()))), masking.budget(rungs)


def _eot(attacks: Attacks) -> Iterable[Judged]:
    if not any(record.randomized for record in attacks.records):
        yield "", Finding("eot", masking.NOT_NEEDED, reason="no noise")
        return
    yield "", masking.unmeasured("eot")
    for single in _of(attacks, _ITERATIVE):
        averaged = [r for r in _of(attacks, _ITERATIVE) if _alike(r) == _alike(single) and r.draws > 1]
        if single.draws == 1 and averaged:
            most = max(averaged, key=lambda r: r.draws)
            yield _place(single), masking.eot(attacks.trial(single), attacks.trial(most))


def _worst(check: str, judged: Iterable[Judged]) -> Finding:
    """The finding that speaks most against the model, of several budgets, attacks or stages.

    Each is judged at its part of the level (Bonferroni); where there are several the figures say of which they are.
    """
    every = [*judged]
    decided = [(finding.p, place, finding) for place, finding in every if finding.p is not None]
    if not decided:
        open_ones = [finding for _, finding in every]
        # That nothing is random decides nothing where another stage met noise.
        told = [f for f in open_ones if f.verdict == masking.UNMEASURED] or open_ones
        return told[0] if told else masking.unmeasured(check)
    p, place, finding = min(decided, key=lambda one: one[0])
    if len(decided) == 1:
        return finding
    shares = tuple(dataclasses.replace(share, label=f"{share.label}, {place}") for share in finding.shares)
    return masking.judged_at(check, shares, min(1.0, len(decided) * p))


def _transfer(run: Run, place: Place, several: Sequence[Attacks], known: Mapping[str, Run]) -> Iterable[Judged]:
    """Examples made on other models against the same attack on the model itself."""
    for evaluation in run.evaluations:
        if evaluation.checkpoint != place[0]:
            continue
        shown = [r for r in evaluation.records if (r.dataset, r.split) == place[1:] and _has_arrays(evaluation, r)]
        made = [r for r in shown if r.source is not None and r.repeat == 0 and not text.minimal(r)]
        own = [r for r in made if relation_of(evaluation, r, known) == WHITE_BOX]
        elsewhere = [r for r in made if not relation_of(evaluation, r, known)]
        for attack in dict.fromkeys((r.attack, r.backend) for r in elsewhere):
            # The first stage that has the attack itself: another adds nothing but its own draws.
            whites = ((attacks, _white(evaluation, attacks, own, attack)) for attacks in several)
            attacks, white = next((one for one in whites if one[1]), (None, None))
            if attacks is None or white is None:
                continue
            blind = [
                (f"from {source_name(evaluation, r, known)}", evaluation, r)
                for r in elsewhere
                if (r.attack, r.backend) == attack
            ]
            yield white[0], masking.black_box(*_aligned(attacks, blind, white), "transfer")


_Shown = tuple[str, Evaluation, Record]


def _white(evaluation: Evaluation, attacks: Attacks, own: Sequence[Record], attack: tuple[str, str]) -> _Shown | None:
    """The same attack on the model itself: from the transfer stage, else from the attack stage."""
    for where, records in ((evaluation, own), (attacks.evaluation, attacks.records)):
        for record in records:
            if (record.attack, record.backend) == attack:
                return text.attack_name(record), where, record
    return None


def _aligned(attacks: Attacks, blind: Sequence[_Shown], white: _Shown) -> tuple[list[Trial], Trial]:
    """Trials on the images that all were tried on and the model gets right."""
    shown = [*blind, white]
    indices = [read_arrays(evaluation, record, "index")["index"] for _, evaluation, record in shown]
    common = attacks.index[attacks.right]
    for index in indices:
        common = np.intersect1d(common, index)
    trials = []
    for (label, evaluation, record), index in zip(shown, indices, strict=True):
        order = np.argsort(index)
        at = order[np.searchsorted(index, common, sorter=order)]
        there = fooled(evaluation, record)[at]
        trials.append(Trial(label, there, randomized=record.randomized))
    return trials[:-1], trials[-1]


def _of(attacks: Attacks, names: Sequence[str]) -> list[Record]:
    return [record for record in attacks.records if _name(record) in names]


def _budgets(records: Sequence[Record]) -> list[list[Record]]:
    """The records of each budget."""
    found: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        found.setdefault(_budget(record), []).append(record)
    return [*found.values()]


def _white_box(attacks: Attacks, blind: Record) -> Trial | None:
    """All that follow a gradient within the budget of a blind attack, as one; None where too little did.

    What is composed of searches too does not tell gradients from them, but shows that the others are but its beginning:
    where they are few steps, it is unknown what gradients reach.
    """
    same = [r for r in _of(attacks, _ONE_STEP + _ITERATIVE + _COMPOSED) if _budget(r) == _budget(blind)]
    white = [r for r in same if _name(r) not in _COMPOSED or not _searches(attacks, r)]
    if all(_name(r) in _ONE_STEP for r in white):
        return None
    if len(white) < len(same) and not any(_is_thorough(attacks, r) for r in white):
        return None
    return attacks.together(white)


def _is_thorough(attacks: Attacks, record: Record) -> bool:
    """Whether many steps were taken, and they lead to the edge of the ball."""
    if _name(record) != "worst_case":
        return record.steps >= _MANY and _reaches(attacks, record)
    return any(
        _steps(options) >= _MANY and _leads(options, _steps(options), record)
        for _, options in _members(attacks, record)
    )


def _reaches(attacks: Attacks, record: Record) -> bool:
    return _leads(_options(attacks, record), record.steps, record)


def _leads(options: Mapping[str, object], steps: int, record: Record) -> bool:
    size = options.get("step_size")
    # Sums of decimals: 10 steps of 0.01 are 0.1.
    return not isinstance(size, int | float) or steps * size >= (record.epsilon or 0) * (1 - 1e-9)


def _steps(options: Mapping[str, object]) -> int:
    """The steps of a member; as many as are many where its spec leaves them at the usual."""
    steps = options.get("steps", _MANY)
    return steps if isinstance(steps, int) else 0


def _members(attacks: Attacks, record: Record) -> list[tuple[str, dict[str, object]]]:
    """Names and options, as far as they are given, of what a worst case takes gradients from."""
    specs = _options(attacks, record).get("attacks", ("pgd", "apgd"))
    return [_parsed(str(spec)) for spec in specs] if isinstance(specs, list | tuple) else []


def _searches(attacks: Attacks, record: Record) -> bool:
    """Whether a composed attack has members that follow no gradient."""
    if _name(record) == "autoattack":
        return _options(attacks, record).get("version") != "rand"
    return any(name not in _ONE_STEP + _ITERATIVE + ("fab",) for name, _ in _members(attacks, record))


def _options(attacks: Attacks, record: Record) -> Mapping[str, object]:
    """The options of an attack: all where its stage says them, else those that are given."""
    artifact = attacks.evaluation.artifact
    specs, resolved = (artifact.options.get(key) if artifact else None for key in ("attacks", "attacks_options"))
    if (
        isinstance(specs, list)
        and isinstance(resolved, list)
        and len(specs) == len(resolved)
        and record.attack in specs
    ):
        found = resolved[specs.index(record.attack)]
        if isinstance(found, dict):
            return found
    return _parsed(record.attack)[1]


def _place(record: Record) -> str:
    radius = "" if record.epsilon is None else f"\N{GREEK SMALL LETTER EPSILON} {text.epsilon(record.epsilon)}"
    return " ".join(part for part in (text.norm_name(record.norm), radius) if part)


def _budget(record: Record) -> tuple[object, ...]:
    return record.norm, record.epsilon, record.backend


def _alike(record: Record) -> tuple[object, ...]:
    """What an attack shares with itself with other draws."""
    name, options = _parsed(record.attack)
    told = tuple(sorted((key, repr(value)) for key, value in options.items() if key != "draws"))
    return name, told, *_budget(record), record.steps, record.restarts


def _name(record: Record) -> str:
    return _parsed(record.attack)[0]


def _parsed(spec: str) -> tuple[str, dict[str, object]]:
    try:
        return parse_spec(spec, "attack")
    except UserError:  # Of another version or another maker.
        return spec, {}


_RULES: Mapping[str, Callable[[Attacks], Iterable[Judged]]] = {
    "one_step": _one_step,
    "black_box": _black_box,
    "unbounded": _unbounded,
    "random_search": _random_search,
    "budget": _ladder,
    "eot": _eot,
}
