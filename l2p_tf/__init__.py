"""Train, attack, judge, report and serve image classifiers that withstand adversarial perturbations."""

__version__ = "0.1.0"
