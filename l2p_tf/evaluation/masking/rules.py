"""Signs that gradients mislead the attacks: the rules that tell them, and what a finding says.

Athalye, Carlini and Wagner (2018, Section 3.1) and Carlini et al. (2019) name signs by which an accuracy under attack
is seen to come from masked gradients instead of robustness. Each is decided here by an exact one-sided test at `LEVEL`,
attacks against each other on the same images: what chance explains, on few images or a randomized model, fails none.
Nothing here runs a model.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from scipy import stats

from l2p_tf.evaluation.masking.record import FAIL, PASS, UNMEASURED, Finding, Name, Share

LEVEL = 0.01
"""Probability, at most, with which a check fails a model that is at the edge of what it allows."""

LEAST = 10
"""Images below which nothing is decided."""

SPARED = 0.05
"""Share of the images that an attack may leave and still count as having reached all; also the share that an attack
without gradients may have to itself, since no two attacks find the same."""

FOUND_BLINDLY = 0.01
"""Share of the images that random search may find where gradients did not."""

LOST = 0.01
"""Share of the images that may be without a usable gradient."""

_SHARES = 17
"""True shares that a chance is looked at for, between 0 and the largest."""

RISING = 0.75
"""Share of the images, at least, on which the loss must rise as a gradient promises."""


@dataclasses.dataclass(frozen=True)
class Check:
    """What a check is called, what it expects of a sound model, what follows where that is not so, and its figures."""

    title: str
    expects: str
    failed: str
    figures: str


CHECKS: dict[Name, Check] = {
    "one_step": Check(
        "One step",
        "One step (FGSM) fools no more images than many steps of the same budget (PGD).",
        "one step fools more images than many do, so following the gradient leads the attack astray",
        "fooled by FGSM, by PGD",
    ),
    "black_box": Check(
        "Black box",
        "An attack that sees scores only does not beat PGD, and finds at most 5% of the images that PGD missed.",
        "an attack without gradients fools images that PGD missed, so PGD is too weak here or its gradients mislead it",
        "fooled by PGD, without gradients, only so",
    ),
    "transfer": Check(
        "Transfer",
        "Examples made on another model do not beat the same attack on the model itself, which misses at most 5% that "
        "they fool.",
        "examples made on another model fool images on which the model's own gradients failed",
        "fooled by its own, by transferred, only so",
    ),
    "unbounded": Check(
        "Unbounded",
        "With every pixel free (L\N{INFINITY}, \N{GREEK SMALL LETTER EPSILON} 1) PGD fools at least 95% of the images.",
        "images withstand even an attack that may change every pixel at will, so it is the attack that fails",
        "fooled at \N{GREEK SMALL LETTER EPSILON} 1",
    ),
    "random_search": Check(
        "Random search",
        "Random points of the ball fool at most 1% of the images that PGD left standing.",
        "random points fool images that PGD left standing, so the gradients are worse than none",
        "fooled of what PGD left",
    ),
    "budget": Check(
        "Budget",
        "A larger budget fools no fewer images, and the largest fools more than the smallest.",
        "a larger budget does not fool more images, as it would if the attack found its way",
        "fooled as \N{GREEK SMALL LETTER EPSILON} grows",
    ),
    "eot": Check(
        "EOT",
        "On a randomized model, gradients averaged over draws (EOT) fool no fewer images than those of a single draw. "
        "That they fool many more is no sign against the model, but one that attacks without EOT are too weak for it.",
        "averaging the gradient over draws weakens the attack, so the averaged gradient is no guide",
        "fooled with one draw, with more, only so",
    ),
    "loss": Check(
        "Loss",
        "On at least 75% of the images the loss rises under PGD, and more by a short step along the gradient than by a "
        "random one.",
        "the loss is flat or shattered: it does not rise where the gradient says it does",
        "rises, beats random",
    ),
    "gradients": Check(
        "Gradients",
        "At most 1% of the images have a gradient that is zero, too small for the arithmetic, or not finite.",
        "images have a gradient that is zero, too small for the arithmetic, or not finite: nothing to follow",
        "without a gradient",
    ),
}
"""All checks, in the order of the tables."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One attack on the images that are judged.

    Attributes:
      label: the attack in a few words.
      fooled: bool (count,), which images it fooled.
      again: which images it fools on draws of their own, be it the same perturbed images asked once more or the attack
        made anew; None without noise, and where nobody asked.
      randomized: whether answers depend on draws of noise.
    """

    label: str
    fooled: np.ndarray
    again: np.ndarray | None = None
    randomized: bool = False

    @property
    def share(self) -> Share:
        """How many it fooled."""
        return Share(self.label, int(self.fooled.sum()), len(self.fooled))

    @property
    def is_settled(self) -> bool:
        """Whether an image that stands is known to stand, or how often it falls to chance."""
        return not self.randomized or self.again is not None


def one_step(one: Trial, many: Trial) -> Finding:
    """One step should not fool more images than many."""
    return _decided("one_step", (one.share, many.share), [outdone(many.fooled, one.fooled)])


def eot(single: Trial, averaged: Trial) -> Finding:
    """A gradient of one draw should not fool more images than the mean over many.

    That the mean fools more is no failure, however much: the figures tell it, with the images that only the mean fools.
    """
    alone = Share(f"{averaged.label} alone", int((averaged.fooled & ~single.fooled).sum()), len(averaged.fooled))
    return _decided("eot", (single.share, averaged.share, alone), [outdone(averaged.fooled, single.fooled)])


def black_box(blind: Sequence[Trial], white: Trial, check: Name = "black_box") -> Finding:
    """What sees no gradients of the model should not beat what does, nor have many images to itself.

    Args:
      blind: attacks without gradients, or examples made on other models; at least one.
      white: the attack that follows the gradient, of the same budget.
      check: `black_box` or `transfer`.
    """
    shares, tests = [white.share], []
    for trial in blind:
        shares += [
            trial.share,
            Share(f"{trial.label} alone", int((trial.fooled & ~white.fooled).sum()), len(white.fooled)),
        ]
        tests.append(outdone(white.fooled, trial.fooled))
        if white.is_settled:
            tests.append(_alone(trial.fooled, white, SPARED))
    return _decided(check, tuple(shares), tests)


def random_search(blind: Trial, white: Trial) -> Finding:
    """Random points should not fool what gradients left standing.

    On a randomized model an image that stood may fall on other draws, whatever is done to it: what random points fool
    is held against what the old perturbation fools when asked `again`.
    """
    robust = ~white.fooled
    share = Share(f"{blind.label}, of the images left", int((blind.fooled & robust).sum()), int(robust.sum()))
    return _decided("random_search", (share,), [_alone(blind.fooled, white, FOUND_BLINDLY)], len(robust))


def unbounded(free: Trial) -> Finding:
    """An attack that may do anything should fool (nearly) all images."""
    return _decided("unbounded", (free.share,), [_above(len(free.fooled) - free.share.hits, len(free.fooled), SPARED)])


def budget(rungs: Sequence[Trial]) -> Finding:
    """A larger budget should fool no fewer images, and the largest more than the smallest.

    Args:
      rungs: one attack at two radii at least, the smallest first.
    """
    tests = [outdone(more.fooled, less.fooled) for less, more in itertools.pairwise(rungs)]
    first, last = rungs[0].fooled, rungs[-1].fooled
    # Where the smallest has fooled all there is nothing more to reach.
    risen = outdone(first, last) <= LEVEL
    tests.append(1.0 if risen else _above(int((~last).sum()), len(last), SPARED))
    return _decided("budget", tuple(rung.share for rung in rungs), tests)


def loss(attacked: np.ndarray, stepped: np.ndarray, strayed: np.ndarray) -> Finding:
    """The loss should rise under attack, and along the gradient more than elsewhere.

    Args:
      attacked: by how much the loss rose from each image to what PGD made of it, (count,).
      stepped: by a short step along the gradient's sign, (count,).
      strayed: by a random step of the same size, (count,).
    """
    found = {"rises under PGD": attacked > 0, "gradient beats random": stepped > strayed}
    shares = tuple(Share(label, int(held.sum()), len(held)) for label, held in found.items())
    return _decided("loss", shares, [_below(share.hits, share.count, RISING) for share in shares])


def gradients(lost: np.ndarray) -> Finding:
    """Few images should be without a usable gradient: bool (count,)."""
    share = Share("no usable gradient", int(lost.sum()), len(lost))
    return _decided("gradients", (share,), [_above(share.hits, share.count, LOST)])


def outdone(strong: np.ndarray, weak: np.ndarray) -> float:
    """Exact one-sided sign test (McNemar's): how likely `weak` leads by this much where both are equally good.

    Args:
      strong: bool (count,), the images that the attack fools which should not be outdone.
      weak: those that the other one fools.

    Returns:
      The p-value: the chance of so many images, or more, to `weak` among those that only one of them fools.
    """
    return _sign(int((weak & ~strong).sum()), int((strong & ~weak).sum()))


def _alone(blind: np.ndarray, white: Trial, allowed: float) -> float:
    """How likely `blind` has so many of the images that `white` left standing where the allowed share is all it has.

    Without noise that is a binomial test. With it, an image that stood may fall by chance, to `blind` as to `white`
    asked again: `excess` tests by how much more often it does so to `blind`.
    """
    robust = ~white.fooled
    if not white.randomized:
        return _above(int((blind & robust).sum()), len(blind), allowed)
    assert white.again is not None
    only, other = (int((a & ~b & robust).sum()) for a, b in ((blind, white.again), (white.again, blind)))
    return excess(only, other, len(blind), allowed)


def excess(only: int, other: int, count: int, allowed: float) -> float:
    """How likely one of two paired shares leads by this much where it truly leads by `allowed`.

    Exact at any number of images: the chance of as large a lead, or larger, is the largest over the shares that the
    other may truly have, up to a bound that it exceeds with a tenth of `LEVEL` (Berger and Boos 1994), which is added.

    Args:
      only: images of the first alone.
      other: images of the second alone.
      count: all images.
      allowed: by how much the first's share may exceed the second's.
    """
    lead = only - other
    if lead <= allowed * count:
        return 1.0
    spent = LEVEL / 10
    # At most so large that both shares and what neither has make one.
    highest = min(float(stats.beta.isf(spent, other + 1, count - other)), (1 - allowed) / 2)
    least = np.arange(count + 1)
    chances = []
    for share in np.linspace(0.0, highest, _SHARES):
        others = stats.binom.pmf(least, count, share)
        # Of the images that are not the second's alone, as many more are the first's.
        leads = stats.binom.sf(lead + least - 1, count - least, (share + allowed) / (1 - share))
        chances.append(float(others @ leads))
    return min(1.0, spent + max(chances))


def _sign(for_it: int, against: int) -> float:
    both = for_it + against
    return float(stats.binomtest(for_it, both, 0.5, "greater").pvalue) if both else 1.0


def _above(hits: int, count: int, share: float) -> float:
    return float(stats.binomtest(hits, count, share, "greater").pvalue) if count else 1.0


def _below(hits: int, count: int, share: float) -> float:
    return float(stats.binomtest(hits, count, share, "less").pvalue) if count else 1.0


def _decided(check: Name, shares: tuple[Share, ...], tests: Sequence[float], count: int | None = None) -> Finding:
    """The finding of several tests, each at its part of the level (Bonferroni)."""
    judged = min(share.count for share in shares) if count is None else count
    if judged < LEAST:
        return Finding(check, UNMEASURED, shares, reason=f"only {judged} images that the model gets right")
    return judged_at(check, shares, min(1.0, len(tests) * min(tests)))


def judged_at(check: Name, shares: tuple[Share, ...], p: float) -> Finding:
    """The finding of figures that are as bad with probability `p`, all that was tried told."""
    return Finding(check, FAIL if p <= LEVEL else PASS, shares, p)
