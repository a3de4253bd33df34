"""Makes the pictures of the pages from the quick start's run: python docs/tools/figures.py [RUN_DIR].

Run the quick start first. The report is photographed by Chromium where it is installed.
"""

import pathlib
import subprocess
import sys
import tempfile

import keras
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import l2p_tf.layers  # noqa: F401 - registers the layers of saved models
from l2p_tf.attacks import ATTACKS
from l2p_tf.classifier import as_classifier
from l2p_tf.data import DATASETS
from l2p_tf.models.surrogates import with_surrogates

RUN = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart")
IMAGES = pathlib.Path(__file__).parents[1] / "images"
NAMES = {"none": "no defense", "pgd": "PGD training", "learn2perturb": "Learn2Perturb"}
COLORS = dict(zip(NAMES, ("#888888", "#1f77b4", "#d62728"), strict=True))


def main() -> None:
    """All pictures."""
    plt.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "path"}
    plt.rcParams |= {"svg.hashsalt": "l2p_tf", "legend.frameon": False}
    models = {name: keras.models.load_model(RUN / name / "train" / "best.keras") for name in NAMES}
    test = DATASETS.parse("digits").open("", False).test
    images = np.concatenate(list(test.batches())).astype("float32") / 255
    draw_attack(models, images, test.labels)
    draw_epsilons(models, images[:200], test.labels[:200])
    draw_draws(models["learn2perturb"], images, test.labels)
    draw_masking(models["none"], images[:100], test.labels[:100])
    photograph_report()


def left(model, images, labels, spec: str) -> float:
    """Accuracy under an attack, in percent."""
    attack = ATTACKS.parse(spec)
    return 100 * (1 - attack(model, images, labels, seed=1).success.mean())


def draw_attack(models, images, labels) -> None:
    """One digit, the perturbation that PGD finds on two classifiers, and what they take the sum for."""
    attack = ATTACKS.parse("pgd(epsilon=0.18, steps=20)")
    found = {name: attack(models[name], images[:40], labels[:40], seed=1) for name in ("none", "pgd")}
    only_one = (found["none"].success == 1) & (found["pgd"].success == 0)
    chosen = int(np.argmin(np.where(only_one, found["none"].probability, 1)))
    image = images[chosen]
    figure, axes = plt.subplots(2, 3, figsize=(5.2, 3.7), layout="constrained")
    for row, (name, result) in zip(axes, found.items(), strict=True):
        attacked = result.adversarial[chosen]
        answers = [softmax(np.asarray(models[name](one[None]))[0]) for one in (image, attacked)]
        said = [f"{np.argmax(one)} ({one.max():.0%})" for one in answers]
        shown = (image, attacked - image, attacked)
        for axis, pixels, title in zip(
            row, shown, (f"image: {said[0]}", "perturbation", f"sum: {said[1]}"), strict=True
        ):
            limits = (-0.18, 0.18) if title == "perturbation" else (0, 1)
            axis.imshow(pixels[..., 0], "RdBu_r" if limits[0] else "gray", vmin=limits[0], vmax=limits[1])
            axis.set(title=title, xticks=[], yticks=[])
        row[0].set_ylabel(NAMES[name])
    figure.savefig(IMAGES / "attack.svg", metadata={"Date": None})


def softmax(logits):
    """Probabilities of one image."""
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def draw_epsilons(models, images, labels) -> None:
    """Accuracy of each classifier under PGD-20 against the radius."""
    figure, axis = plt.subplots(figsize=(4.6, 2.9), layout="constrained")
    radii = (0, 0.03, 0.06, 0.09, 0.12, 0.15, 0.18, 0.21, 0.24, 0.3)
    for name, model in models.items():
        values = [left(model, images, labels, f"pgd(epsilon={max(e, 1e-6)}, steps=20)") for e in radii]
        axis.plot(radii, values, "o-", color=COLORS[name], label=NAMES[name], markersize=3)
    axis.axvline(0.18, color="#bbbbbb", linewidth=1, zorder=0)
    axis.text(0.182, 2, "trained for", color="#888888")
    axis.set(xlabel="epsilon of PGD-20 (l_inf)", ylabel="accuracy in percent", ylim=(0, 101))
    axis.legend()
    figure.savefig(IMAGES / "epsilon.svg", metadata={"Date": None})


def draw_draws(model, images, labels) -> None:
    """Accuracy of a randomized classifier against the draws that each gradient is averaged over."""
    figure, axis = plt.subplots(figsize=(4.6, 2.5), layout="constrained")
    draws = (1, 2, 5, 10, 20, 40)
    values = [left(model, images, labels, f"pgd(epsilon=0.21, steps=20, draws={n})") for n in draws]
    axis.plot(range(len(draws)), values, "o-", color=COLORS["learn2perturb"], markersize=3)
    axis.set_xticks(range(len(draws)), draws)
    axis.set(xlabel="draws averaged in every gradient (EOT)", ylabel="accuracy in percent")
    figure.savefig(IMAGES / "eot.svg", metadata={"Date": None})


def draw_masking(model, images, labels) -> None:
    """A classifier behind rounded pixels: what attacks leave that use its gradient, and those that do not."""
    inputs = keras.Input(images.shape[1:])
    rounded = as_classifier(keras.Model(inputs, model(keras.ops.round(inputs * 8) / 8)))
    epsilon = "epsilon=0.1"
    values = {
        "PGD-20": left(rounded, images, labels, f"pgd({epsilon}, steps=20)"),
        "random noise": left(rounded, images, labels, f"noise({epsilon})"),
        "Square, 500 queries": left(rounded, images, labels, f"square({epsilon}, queries=500)"),
        "HopSkipJump": left(rounded, images, labels, f"hop_skip_jump(norm=linf, {epsilon}, steps=10)"),
        "PGD-20 with BPDA": left(
            with_surrogates(rounded, "round*: identity"), images, labels, f"pgd({epsilon}, steps=20)"
        ),
    }
    figure, axis = plt.subplots(figsize=(4.8, 2.3), layout="constrained")
    bars = axis.barh(list(values)[::-1], list(values.values())[::-1], color=["#1f77b4"] * 4 + ["#d62728"])
    axis.bar_label(bars, fmt="%.0f", padding=2)
    axis.set(xlabel="accuracy in percent that is left", xlim=(0, 105))
    figure.savefig(IMAGES / "masking.svg", metadata={"Date": None})


def photograph_report() -> None:
    """The summary, without its text, and the comparison of the report, in few colors."""
    summary = "section[aria-labelledby=summary] >"
    style = (
        f"<style>{summary} p:not(.warning), {summary} .warning ~ .warning, {summary} details {{display: none}}</style>"
    )
    with tempfile.TemporaryDirectory() as folder:
        page, picture = pathlib.Path(folder) / "report.html", pathlib.Path(folder) / "report.png"
        report = (RUN / "report" / "report.html").read_text("utf-8")
        page.write_text(report.replace("</head>", f"{style}</head>"), "utf-8")
        command = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1200,1010"]
        subprocess.run([*command, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True)
        Image.open(picture).convert("RGB").quantize(64).save(IMAGES / "report.png", optimize=True)


if __name__ == "__main__":
    main()
