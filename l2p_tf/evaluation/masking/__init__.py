"""Checks for gradient masking: their rules, the attacks they judge, the record and the artifact of a stage."""
