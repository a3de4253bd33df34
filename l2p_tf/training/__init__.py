"""The trainer that all defences share, and what a training run needs around it."""
