"""Robustness certificates, one per file, on top of `base.Certificate`; see `base.CERTIFICATES`."""
