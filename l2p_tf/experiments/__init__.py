"""Experiments: the runs and attacks that a paper's table or figure needs, at full scale or in miniature."""
