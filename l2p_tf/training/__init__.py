"""The trainer shared by all defenses, with its losses, optimizer and schedules."""
