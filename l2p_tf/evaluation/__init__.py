"""Evaluation of models on data under attacks."""
