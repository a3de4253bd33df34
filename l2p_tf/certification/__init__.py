"""Certificates of robustness, one a file, all on the contract of `base.Certificate`; see `base.CERTIFICATES`."""
