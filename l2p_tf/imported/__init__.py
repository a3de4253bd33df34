"""Imports external models as runs of this toolkit."""
