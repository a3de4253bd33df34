"""Gradient masking checks: rules, attacks, records and the artifact of a stage."""
