"""The attacks beside those of other libraries: same classifier, same images, same budget.

Robust accuracies are compared in percentage points. Ours stops an example as soon as it is misclassified, theirs go on
to the end, where some examples are right again: so ours may be stronger by more than it may be weaker.

Needs CleverHans, which comes with the project, Foolbox and ART: pip install '.[peers]'.
"""

import warnings

import numpy as np
import pytest
import tensorflow as tf

from l2p_tf.attacks import ATTACKS
from l2p_tf.data import DATASETS, ImageData, prepare
from l2p_tf.defenses import DEFENSES
from l2p_tf.fitting.options import TrainOptions
from l2p_tf.fitting.run import train
from l2p_tf.models import MODELS
from l2p_tf.models.saving import load_classifier

with warnings.catch_warnings():
    # Foolbox imports from a name space of SciPy that is on its way out; ART and CleverHans warn as they like.
    warnings.simplefilter("ignore")
    foolbox = pytest.importorskip("foolbox")
    pytest.importorskip("art")
    from art.attacks.evasion import AutoProjectedGradientDescent, HopSkipJump, PixelAttack, SquareAttack
    from art.estimators.classification import TensorFlowV2Classifier
    from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method
    from cleverhans.tf2.attacks.momentum_iterative_method import momentum_iterative_method
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

# ART's differential evolution divides by the spread of a population that has converged.
pytestmark = pytest.mark.filterwarnings("ignore:divide by zero encountered:RuntimeWarning:art")

ORDERS = {"linf": np.inf, "l2": 2}
EPSILON = {"linf": 0.25, "l2": 1.2}
SEEDS = range(3)


class Setting:
    """A trained classifier, images of its test split, and the classifier as each library wants it."""

    def __init__(self, model, images, labels):
        self.model, self.images, self.labels = model, images, labels
        self.x = tf.constant(images)
        # int64, because Foolbox's conversion of types calls a function that NumPy 2 has no more.
        self.y = tf.constant(labels, tf.int64)
        self.logits = tf.function(lambda x: model(x, training=False), autograph=False)
        self.foolbox = foolbox.TensorFlowModel(self.logits, bounds=(0.0, 1.0), device="/CPU:0")

    def ours(self, spec, seed=0, count=None):
        return ATTACKS.parse(spec)(self.model, self.images[:count], self.labels[:count], seed=seed)

    def foolboxes(self, attack, **options):
        return attack.run(self.foolbox, self.x, foolbox.criteria.Misclassification(self.y), **options).numpy()

    def art(self, loss=None, probabilities=False):
        def forward(x, training=False):
            del training
            logits = self.logits(tf.cast(x, tf.float32))
            return tf.nn.softmax(logits) if probabilities else logits

        shape = self.images.shape[1:]
        return ArtClassifier(
            model=forward, nb_classes=10, input_shape=shape, loss_object=loss or CrossEntropy(), clip_values=(0.0, 1.0)
        )

    def wrong(self, images):
        return self.logits(images).numpy().argmax(-1) != self.labels[: len(images)]

    def robust(self, images):
        """Robust accuracy on adversarial images, in percent."""
        return 100.0 * float(np.mean(~self.wrong(images)))


class CrossEntropy:
    """A loss as ART wants it: summed when called, so that every image's gradient is its own."""

    reduction = "sum"

    def each(self, targets, logits):
        return tf.nn.softmax_cross_entropy_with_logits(targets, logits)

    def __call__(self, targets, logits):
        return tf.reduce_sum(self.each(tf.cast(targets, tf.float32), logits))


class LogitsRatio(CrossEntropy):
    """The difference of logits ratio, from its definition."""

    def each(self, targets, logits):
        top = tf.sort(logits, -1, "DESCENDING")
        other = tf.reduce_max(logits - 1e9 * targets, -1)
        return (other - tf.reduce_sum(targets * logits, -1)) / (top[:, 0] - top[:, 2] + 1e-12)


class ArtClassifier(TensorFlowV2Classifier):
    """ART's classifier, but for the loss per image: there ART asks Keras for an enumeration that Keras 3 has no more.

    For the same reason its own names of losses cannot be used, and the losses are handed to it as objects.
    """

    def compute_loss(self, x, y, reduction="none", training_mode=False, **kwargs):
        del reduction, kwargs
        logits = self.model(tf.constant(x), training=training_mode)
        return self.loss_object.each(tf.constant(y, tf.float32), logits).numpy()


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peers")
    prepare(DATASETS.parse("digits"), folder / "data")
    data = ImageData.open(folder / "data")
    options = TrainOptions(
        name="peers",
        model=MODELS.parse("resnet_v1(depth=8)"),
        defense=DEFENSES.parse("pgd(epsilon=0.18, step_size=0.06, steps=4)"),
        validation_attack=ATTACKS.parse("pgd(epsilon=0.18, steps=4)"),
        epochs=16,
        batch_size=64,
        learning_rate=0.05,
        drops=(12,),
        validate_every=4,
    )
    trained = train(options, data, folder / "train")
    images, labels = data.split("test")
    images = images[:].astype(np.float32) / 255.0
    whole = Setting(load_classifier(trained.path / "best.keras"), images, np.asarray(labels))
    assert len(images) >= 300
    assert whole.robust(images) > 95.0
    return whole


def close(ours, theirs, tolerance=1.0):
    assert abs(ours - theirs) <= tolerance, (ours, theirs)


def not_weaker(ours, theirs, tolerance=1.0):
    assert ours <= theirs + tolerance, (ours, theirs)


def judged(ours):
    """A comparison says something only where neither everything falls nor nothing does."""
    assert 20.0 < ours < 80.0, ours


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fast_gradient(setting, norm):
    epsilon = EPSILON[norm]
    ours = setting.robust(setting.ours(f"fgsm(epsilon={epsilon}, norm={norm})").adversarial)
    judged(ours)
    theirs = fast_gradient_method(
        setting.logits, setting.x, epsilon, ORDERS[norm], clip_min=0.0, clip_max=1.0, y=setting.y
    )
    close(ours, setting.robust(theirs))
    attack = {"linf": foolbox.attacks.LinfFastGradientAttack, "l2": foolbox.attacks.L2FastGradientAttack}[norm]
    close(ours, setting.robust(setting.foolboxes(attack(), epsilon=epsilon)))


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.22), ("l2", 0.9)])
def test_projected_gradient_descent(setting, norm, epsilon):
    step = epsilon / 8
    spec = f"pgd(epsilon={epsilon}, norm={norm}, steps=20, step_size={step}, random_start=False)"
    ours = setting.robust(setting.ours(spec).adversarial)
    judged(ours)
    theirs = projected_gradient_descent(
        setting.logits, setting.x, epsilon, step, 20, ORDERS[norm], clip_min=0.0, clip_max=1.0, y=setting.y
    )
    close(ours, setting.robust(theirs))
    attack = {
        "linf": foolbox.attacks.LinfProjectedGradientDescentAttack,
        "l2": foolbox.attacks.L2ProjectedGradientDescentAttack,
    }[norm](abs_stepsize=step, steps=20, random_start=False)
    close(ours, setting.robust(setting.foolboxes(attack, epsilon=epsilon)))


@pytest.mark.parametrize(
    "spec",
    [
        "foolbox(attack=LinfPGD, abs_stepsize={step}, steps=20, epsilon={epsilon})",
        "art(attack=ProjectedGradientDescent, eps_step={step}, max_iter=20, num_random_init=1, epsilon={epsilon})",
    ],
)
def test_the_same_through_the_names_of_other_libraries(setting, spec):
    epsilon, step = 0.22, 0.22 / 8
    ours = setting.robust(setting.ours(f"pgd(epsilon={epsilon}, steps=20, step_size={step})").adversarial)
    theirs = setting.ours(spec.format(epsilon=epsilon, step=step))
    judged(ours)
    close(ours, setting.robust(theirs.adversarial), 2.0)
    assert theirs.linf.max() <= epsilon + 2e-6


def test_sparse_steps_in_l1(setting):
    epsilon, sparsity = 2.0, 0.05
    step = epsilon / 8
    spec = f"pgd(epsilon={epsilon}, norm=l1, steps=20, step_size={step}, sparsity={sparsity}, random_start=False)"
    ours = setting.robust(setting.ours(spec).adversarial)
    judged(ours)
    attack = foolbox.attacks.SparseL1DescentAttack(abs_stepsize=step, steps=20, quantile=1 - sparsity)
    # Foolbox's projection knows nothing of the box, by which what it gives is clipped.
    not_weaker(ours, setting.robust(setting.foolboxes(attack, epsilon=epsilon)))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_momentum_iterative_method(setting, norm):
    epsilon = EPSILON[norm]
    step = epsilon / 8
    ours = setting.robust(
        setting.ours(f"mim(epsilon={epsilon}, norm={norm}, steps=10, step_size={step}, decay=1.0)").adversarial
    )
    judged(ours)
    theirs = momentum_iterative_method(
        setting.logits, setting.x, epsilon, step, 10, ORDERS[norm], clip_min=0.0, clip_max=1.0, y=setting.y
    )
    close(ours, setting.robust(theirs))
    # Foolbox normalizes the gradient by the norm of the ball before it is added up (in l_inf: takes its sign), the
    # paper by its mean absolute value: another algorithm, and a weaker one.
    attack = {
        "linf": foolbox.attacks.LinfMomentumIterativeFastGradientMethod,
        "l2": foolbox.attacks.L2MomentumIterativeFastGradientMethod,
    }[norm](momentum=1.0, abs_stepsize=step, steps=10)
    not_weaker(ours, setting.robust(setting.foolboxes(attack, epsilon=epsilon)))


def norms(setting, images):
    return np.linalg.norm((images - setting.images).reshape(len(images), -1), axis=1)


def compared_norms(setting, ours, theirs):
    """Norms on the examples on which both succeed, and the share of examples on which each does."""
    # What Foolbox's C&W fails on it returns as a black image, which is misclassified too.
    theirs_found = setting.wrong(theirs) & (theirs.reshape(len(theirs), -1).max(-1) > 0.0)
    found = setting.wrong(ours.adversarial)
    both = found & theirs_found
    return ours.l2[both], norms(setting, theirs)[both], float(found.mean()), float(theirs_found.mean())


@pytest.mark.parametrize("abort_early", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_carlini_wagner(setting, abort_early):
    spec = f"cw(steps=100, binary_search_steps=5, learning_rate=0.05, initial_const=0.01, abort_early={abort_early})"
    theirs = foolbox.attacks.L2CarliniWagnerAttack(
        steps=100, binary_search_steps=5, stepsize=0.05, initial_const=0.01, confidence=0.0, abort_early=abort_early
    )
    some = Setting(setting.model, setting.images[:200], setting.labels[:200])
    ours, theirs, found, theirs_found = compared_norms(some, some.ours(spec), some.foolboxes(theirs))
    assert found >= theirs_found - 0.01
    assert ours.mean() <= 1.02 * theirs.mean(), (ours.mean(), theirs.mean())
    # Nor is a good mean made of examples that are given up: see to the single ones.
    assert np.mean(ours > 1.1 * theirs) <= 0.03


def test_deepfool(setting):
    theirs = foolbox.attacks.L2DeepFoolAttack(steps=50, candidates=10, overshoot=0.02, loss="logits")
    spec = "deepfool(steps=50, candidates=10, overshoot=0.02)"
    ours, theirs, found, theirs_found = compared_norms(setting, setting.ours(spec), setting.foolboxes(theirs))
    assert found >= theirs_found - 0.01
    assert ours.mean() == pytest.approx(theirs.mean(), rel=0.02)


def seeded(attack, setting):
    """Mean robust accuracy over seeds: a single start is chance to within two points or so on these images."""
    found = []
    for seed in SEEDS:
        np.random.seed(seed)
        found.append(setting.robust(attack().generate(setting.images, setting.labels)))
    return float(np.mean(found))


def ours_seeded(spec, setting):
    return float(np.mean([setting.robust(setting.ours(spec, seed).adversarial) for seed in SEEDS]))


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_auto_pgd(setting, loss):
    epsilon, steps, restarts = 0.22, 50, 2
    peer = setting.art({"ce": CrossEntropy, "dlr": LogitsRatio}[loss]())

    def attack():
        # The paper's first step is twice the radius.
        return AutoProjectedGradientDescent(
            peer, norm=np.inf, eps=epsilon, eps_step=2 * epsilon, max_iter=steps, nb_random_init=restarts,
            batch_size=len(setting.images), verbose=False,
        )  # fmt: skip

    ours = ours_seeded(f"apgd(epsilon={epsilon}, steps={steps}, restarts={restarts}, loss={loss})", setting)
    judged(ours)
    not_weaker(ours, seeded(attack, setting))


@pytest.mark.slow
def test_square(setting):
    epsilon, queries = 0.25, 200
    peer = setting.art()

    def attack():
        # A square is a query in both; ART asks the classifier three times for each, which is not held against it.
        return SquareAttack(
            peer, norm=np.inf, eps=epsilon, max_iter=queries, p_init=0.8, nb_restarts=1,
            batch_size=len(setting.images), verbose=False,
        )  # fmt: skip

    ours = ours_seeded(f"square(epsilon={epsilon}, queries={queries}, p=0.8)", setting)
    judged(ours)
    not_weaker(ours, seeded(attack, setting))


@pytest.mark.slow
@pytest.mark.parametrize(("pixels", "generations"), [(1, 5), (2, 10)])
def test_few_pixels(setting, pixels, generations):
    count = 60
    # ART multiplies the number of genes by a whole number to come near 400 candidates, and looks at that many in the
    # first generation and in every later one. It descends what the classifier returns for the label: probabilities.
    genes = pixels * (2 + setting.images.shape[-1])
    population = 400 // genes * genes
    np.random.seed(0)
    attack = PixelAttack(setting.art(probabilities=True), th=pixels, es=1, max_iter=generations)
    theirs = setting.robust(attack.generate(setting.images[:count], setting.labels[:count]).astype(np.float32))
    spec = f"few_pixel(pixels={pixels}, population={population}, generations={generations})"
    ours = setting.ours(spec, count=count)
    assert ours.forwards.max() == population * (generations + 1)
    assert ours.l0.max() <= pixels * setting.images.shape[-1]
    not_weaker(setting.robust(ours.adversarial), theirs, 2.0)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_hop_skip_jump(setting, norm):
    images, labels = setting.images[:60], setting.labels[:60]
    classifier, asked = setting.art(), []
    answers = classifier.predict
    classifier.predict = lambda x, **options: (asked.append(len(x)), answers(x, **options))[1]
    attack = HopSkipJump(classifier, norm=ORDERS[norm], max_iter=10, batch_size=512, verbose=False)
    np.random.seed(0)
    # ART ends a step away from the boundary, ours on it: its own search takes it there.
    ended = zip(attack.generate(images, labels), images, labels, strict=True)
    queries = sum(asked) / len(images)
    found = np.stack([attack._binary_search(x, image, label, attack.norm, 0.0, 1.0) for x, image, label in ended])
    right = ~setting.wrong(images)
    assert setting.wrong(found).all()
    theirs = np.linalg.norm((found - images).reshape(60, -1), ORDERS[norm], axis=1)[right]
    outputs = [setting.ours(f"hop_skip_jump(norm={norm}, steps=10)", seed, 60) for seed in SEEDS]
    assert all(output.success.all() for output in outputs)
    assert outputs[0].forwards[right].mean() == pytest.approx(queries, rel=0.02)
    sizes = np.stack([(output.l2 if norm == "l2" else output.linf)[right] for output in outputs])
    # ART draws where it begins by no seed: of 60 images a single run of its is chance to some percent.
    assert np.median(sizes) == pytest.approx(np.median(theirs), rel=0.1)
    assert sizes.mean() == pytest.approx(theirs.mean(), rel=0.06)
