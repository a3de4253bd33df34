"""The trainer that all defences share, with its losses, optimizer and schedules."""
