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
_BLIND = ("square", "spsa", "zoo")
_RANDOM = ("noise",)

Place = tuple[str, str, str]
"""Weights, data set and split."""


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

        Of a randomised model a `blind` one is that of the second repeat, whose draws are not those that the first was
        scored on.
        """
        second = self.repeats.get((record.attack, record.backend))
        first = self._fooled(record)
        again = self._fooled(second) if record.randomized and second is not None else None
        label = label or text.attack_name(record)
        return Trial(label, again if blind and again is not None else first, again, record.randomized)

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
            places.setdefault((evaluation.which, first.dataset, first.split), []).append(attacks)
    made: dict[Place, list[Finding]] = {}
    for place, several in places.items():
        found = {check: rule(several) for check, rule in _RULES.items()}
        found["transfer"] = _transfer(run, place, several, known)
        made[place] = [found.get(check) or masking.unmeasured(check) for check in masking.CHECKS]
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


def _one_step(several: Sequence[Attacks]) -> Finding:
    for attacks in several:
        for one in _of(attacks, _ONE_STEP):
            same = [r for r in _of(attacks, _ITERATIVE) if _budget(r) == _budget(one) and r.draws == one.draws]
            if same:
                many = min(same, key=_strength)
                return masking.one_step(attacks.trial(one), attacks.trial(many))
    return masking.unmeasured("one_step")


def _black_box(several: Sequence[Attacks]) -> Finding:
    for attacks in several:
        for blind in _of(attacks, _BLIND):
            if white := _strongest(attacks, blind):
                others = [r for r in _of(attacks, _BLIND) if _budget(r) == _budget(blind)]
                return masking.black_box([attacks.trial(r, blind=True) for r in others], attacks.trial(white))
    return masking.unmeasured("black_box")


def _random_search(several: Sequence[Attacks]) -> Finding:
    for attacks in several:
        for random in _of(attacks, _RANDOM):
            white = _strongest(attacks, random)
            trial = attacks.trial(white) if white else None
            if trial and trial.is_settled:
                return masking.random_search(attacks.trial(random, blind=True), trial)
    return masking.unmeasured("random_search")


def _unbounded(several: Sequence[Attacks]) -> Finding:
    for attacks in several:
        free = [r for r in _of(attacks, _ITERATIVE) if r.norm == "linf" and (r.epsilon or 0) >= 1]
        if free:
            return masking.unbounded(attacks.trial(max(free, key=_strength)))
    return masking.unmeasured("unbounded")


def _ladder(several: Sequence[Attacks]) -> Finding:
    for attacks in several:
        families: dict[tuple[object, ...], dict[float, Record]] = {}
        for record in _of(attacks, _ITERATIVE):
            families.setdefault(family_of(record), {}).setdefault(float(record.epsilon or 0), record)
        longest = max(families.values(), key=len, default={})
        if len(longest) > 1:
            rungs = [
                attacks.trial(longest[radius], f"\N{GREEK SMALL LETTER EPSILON} {text.epsilon(radius)}")
                for radius in sorted(longest)
            ]
            return masking.budget(rungs)
    return masking.unmeasured("budget")


def _eot(several: Sequence[Attacks]) -> Finding:
    randomized = [attacks for attacks in several if any(record.randomized for record in attacks.records)]
    if not randomized:
        return Finding("eot", masking.NOT_NEEDED, reason="no noise")
    for attacks in randomized:
        for single in _of(attacks, _ITERATIVE):
            averaged = [r for r in _of(attacks, _ITERATIVE) if _alike(r) == _alike(single) and r.draws > single.draws]
            if single.draws == 1 and averaged:
                most = max(averaged, key=lambda r: r.draws)
                return masking.eot(attacks.trial(single), attacks.trial(most))
    return masking.unmeasured("eot")


def _transfer(run: Run, place: Place, several: Sequence[Attacks], known: Mapping[str, Run]) -> Finding:
    """Examples made on other models against the same attack on the model itself."""
    for evaluation in run.evaluations:
        if evaluation.which != place[0]:
            continue
        shown = [r for r in evaluation.records if (r.dataset, r.split) == place[1:] and _has_arrays(evaluation, r)]
        made = [r for r in shown if r.source is not None and r.repeat == 0 and not text.minimal(r)]
        own = [r for r in made if relation_of(evaluation, r, known) == WHITE_BOX]
        elsewhere = [r for r in made if not relation_of(evaluation, r, known)]
        for attacks in several:
            for attack in dict.fromkeys((r.attack, r.backend) for r in elsewhere):
                white = _white(evaluation, attacks, own, attack)
                if white is None:
                    continue
                blind = [
                    (f"from {source_name(evaluation, r, known)}", evaluation, r)
                    for r in elsewhere
                    if (r.attack, r.backend) == attack
                ]
                return masking.black_box(*_aligned(attacks, blind, white), "transfer")
    return masking.unmeasured("transfer")


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


def _strongest(attacks: Attacks, blind: Record) -> Record | None:
    same = [record for record in _of(attacks, _ITERATIVE) if _budget(record) == _budget(blind)]
    return max(same, key=_strength, default=None)


def _budget(record: Record) -> tuple[object, ...]:
    return record.norm, record.epsilon, record.backend


def _strength(record: Record) -> tuple[int, int]:
    return record.draws, record.steps * record.restarts


def _alike(record: Record) -> tuple[object, ...]:
    """What an attack shares with itself with other draws."""
    name, options = _parsed(record)
    told = tuple(sorted((key, repr(value)) for key, value in options.items() if key != "draws"))
    return name, told, *_budget(record), record.steps, record.restarts


def _name(record: Record) -> str:
    return _parsed(record)[0]


def _parsed(record: Record) -> tuple[str, dict[str, object]]:
    try:
        return parse_spec(record.attack, "attack")
    except UserError:  # Of another version or another maker.
        return record.attack, {}


_RULES: Mapping[str, Callable[[Sequence[Attacks]], Finding]] = {
    "one_step": _one_step,
    "black_box": _black_box,
    "unbounded": _unbounded,
    "random_search": _random_search,
    "budget": _ladder,
    "eot": _eot,
}
