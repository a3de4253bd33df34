"""The stages: each turns flags into one call of the library."""
