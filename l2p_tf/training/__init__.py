"""The trainer that all defenses share, with its losses, optimizer and schedules."""
