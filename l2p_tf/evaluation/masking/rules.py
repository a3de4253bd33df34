"""Rules that detect gradients which mislead attacks, and the texts of findings.

Athalye, Carlini and Wagner (2018, Section 3.1) and Carlini et al. (2019) list signs that an accuracy under attack is
due to masked gradients instead of robustness. Each check is an exact one-sided test at `LEVEL`, comparing attacks on
the same images, so that chance, on few images or a randomized model, does not cause failures. Nothing here runs a
model.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from scipy import stats

from l2p_tf.evaluation.masking.record import FAIL, PASS, UNMEASURED, Finding, Name, Share

LEVEL = 0.01
"""Maximum probability of failing a model that is at the boundary of what a check allows."""

LEAST = 10
"""Minimum number of images for a decision."""

SPARED = 0.05
"""Share of images that an attack may leave and still count as having fooled all; also the share that only a
gradient-free attack may fool, because no two attacks fool the same images."""

FOUND_BLINDLY = 0.01
"""Share of images that random search may fool where gradients did not."""

LOST = 0.01
"""Share of images that may lack a usable gradient."""

_SHARES = 17
"""Number of true shares, between 0 and the largest, at which the probability is evaluated."""

RISING = 0.75
"""Minimum share of images on which the loss must rise as the gradient predicts."""


@dataclasses.dataclass(frozen=True)
class Check:
    """Texts of a check: its title, what it expects of a sound model, what a failure implies, and its figures."""

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
    """One attack on the images under test.

    Attributes:
      label: short name of the attack.
      fooled: bool (count,), which images it fooled.
      again: which images are fooled on separate draws, by evaluating the same perturbed images again or by repeating
      the attack; None without noise, or if not evaluated.
      randomized: whether predictions depend on draws of noise.
    """

    label: str
    fooled: np.ndarray
    again: np.ndarray | None = None
    randomized: bool = False

    @property
    def share(self) -> Share:
        """Share of images it fooled."""
        return Share(self.label, int(self.fooled.sum()), len(self.fooled))

    def share_without(self, other: Trial) -> Share:
        """Share of images that it alone of the two fooled."""
        return Share(f"{self.label} alone", int((self.fooled & ~other.fooled).sum()), len(self.fooled))

    @property
    def is_settled(self) -> bool:
        """Whether survival is certain, or the effect of chance on it is known."""
        return not self.randomized or self.again is not None


def one_step(one: Trial, many: Trial) -> Finding:
    """One step should not fool more images than many steps."""
    return _decided("one_step", (one.share, many.share), [outdone(many.fooled, one.fooled)])


def eot(single: Trial, averaged: Trial) -> Finding:
    """A gradient of one draw should not fool more images than the mean over many.

    It is no failure if the mean fools more, however many; the figures include the images that only the mean fools.
    """
    shares = (single.share, averaged.share, averaged.share_without(single))
    return _decided("eot", shares, [outdone(averaged.fooled, single.fooled)])


def black_box(blind: Sequence[Trial], white: Trial, check: Name = "black_box") -> Finding:
    """Attacks that see no gradients of the model should not beat one that does, nor fool many images it misses.

    Args:
      blind: gradient-free attacks, or examples made on other models; at least one.
      white: the gradient-based attack of the same budget.
      check: `black_box` or `transfer`.
    """
    shares, tests = [white.share], []
    for trial in blind:
        shares += [trial.share, trial.share_without(white)]
        tests.append(outdone(white.fooled, trial.fooled))
        if white.is_settled:
            tests.append(_alone(trial.fooled, white, SPARED))
    return _decided(check, tuple(shares), tests)


def random_search(blind: Trial, white: Trial) -> Finding:
    """Random points should not fool images that gradients did not.

    On a randomized model, an image that survived may be fooled on other draws whatever is done to it, so random points
    are compared with evaluating the old perturbation `again`.
    """
    robust = ~white.fooled
    share = Share(f"{blind.label}, of the images left", int((blind.fooled & robust).sum()), int(robust.sum()))
    return _decided("random_search", (share,), [_alone(blind.fooled, white, FOUND_BLINDLY)], len(robust))


def unbounded(free: Trial) -> Finding:
    """An unbounded attack should fool (nearly) all images."""
    return _decided("unbounded", (free.share,), [_chance(len(free.fooled) - free.share.hits, len(free.fooled), SPARED)])


def budget(rungs: Sequence[Trial]) -> Finding:
    """A larger budget should fool no fewer images, and the largest more than the smallest.

    Args:
      rungs: one attack at two or more radii, the smallest first.
    """
    tests = [outdone(more.fooled, less.fooled) for less, more in itertools.pairwise(rungs)]
    first, last = rungs[0].fooled, rungs[-1].fooled
    # If the smallest has fooled all, there is nothing more to fool.
    risen = outdone(first, last) <= LEVEL
    tests.append(1.0 if risen else _chance(int((~last).sum()), len(last), SPARED))
    return _decided("budget", tuple(rung.share for rung in rungs), tests)


def loss(attacked: np.ndarray, stepped: np.ndarray, strayed: np.ndarray) -> Finding:
    """The loss should rise under attack, and more along the gradient than along a random direction.

    Args:
      attacked: rise of the loss from each image to PGD's result, (count,).
      stepped: rise by a short step along the gradient's sign, (count,).
      strayed: rise by a random step of the same size, (count,).
    """
    conditions = {"rises under PGD": attacked > 0, "gradient beats random": stepped > strayed}
    shares = tuple(Share(label, int(held.sum()), len(held)) for label, held in conditions.items())
    return _decided("loss", shares, [_chance(share.hits, share.count, RISING, "less") for share in shares])


def gradients(lost: np.ndarray) -> Finding:
    """Few images should lack a usable gradient: bool (count,)."""
    share = Share("no usable gradient", int(lost.sum()), len(lost))
    return _decided("gradients", (share,), [_chance(share.hits, share.count, LOST)])


def outdone(strong: np.ndarray, weak: np.ndarray) -> float:
    """Exact one-sided sign test (McNemar's) of whether `weak` beats `strong` by chance only.

    Args:
      strong: bool (count,), images fooled by the attack that should not be outdone.
      weak: images fooled by the other one.

    Returns:
      The p-value: probability of at least so many images for `weak` among those that only one attack fools.
    """
    return _chance(int((weak & ~strong).sum()), int((weak ^ strong).sum()), 0.5)


def _alone(blind: np.ndarray, white: Trial, allowed: float) -> float:
    """P-value of `blind` fooling so many images that `white` did not, if its true share is `allowed`.

    Without noise this is a binomial test. With noise, images that survived may be fooled by chance, by `blind` as well
    as by `white` evaluated again: `excess` tests how much more often that happens to `blind`.
    """
    robust = ~white.fooled
    if not white.randomized:
        return _chance(int((blind & robust).sum()), len(blind), allowed)
    assert white.again is not None
    only, other = (int((a & ~b & robust).sum()) for a, b in ((blind, white.again), (white.again, blind)))
    return excess(only, other, len(blind), allowed)


def excess(only: int, other: int, count: int, allowed: float) -> float:
    """P-value of the lead of one of two paired shares, if its true lead is `allowed`.

    Exact for any number of images: the probability of at least such a lead, maximized over the other's true share up to
    a bound that it exceeds with probability `LEVEL` / 10, which is added (Berger and Boos 1994).

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
    # At most such that both shares and the rest add up to one.
    highest = min(float(stats.beta.isf(spent, other + 1, count - other)), (1 - allowed) / 2)
    least = np.arange(count + 1)
    chances = []
    for share in np.linspace(0.0, highest, _SHARES):
        others = stats.binom.pmf(least, count, share)
        # Of the images that are not the second's alone, `lead` more are the first's.
        leads = stats.binom.sf(lead + least - 1, count - least, (share + allowed) / (1 - share))
        chances.append(float(others @ leads))
    return min(1.0, spent + max(chances))


def _chance(hits: int, count: int, share: float, side: str = "greater") -> float:
    """P-value of a binomial test; 1 without images."""
    return float(stats.binomtest(hits, count, share, side).pvalue) if count else 1.0


def _decided(check: Name, shares: tuple[Share, ...], tests: Sequence[float], count: int | None = None) -> Finding:
    """Combines several tests, each at its part of the level (Bonferroni)."""
    judged = min(share.count for share in shares) if count is None else count
    if judged < LEAST:
        return Finding(check, UNMEASURED, shares, reason=f"only {judged} images that the model gets right")
    return judged_at(check, shares, min(1.0, len(tests) * min(tests)))


def judged_at(check: Name, shares: tuple[Share, ...], p: float) -> Finding:
    """Returns the finding for a p-value that covers all tests."""
    return Finding(check, FAIL if p <= LEVEL else PASS, shares, p)
