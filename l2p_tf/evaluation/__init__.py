"""Dataset, model and attack in; results out."""
