"""Experiments: which runs and attacks a table or figure of a paper needs, at its own scale or in miniature."""
