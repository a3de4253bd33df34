"""What a training run needs around the trainer: callbacks, state, resuming, sweeps."""
