"""Models that were made elsewhere, turned into runs of this toolkit."""
