"""Command-line stages: each converts flags to one call of the library."""
