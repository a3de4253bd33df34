"""The sections of a report, one per file; `section.py` finds them by scanning this folder."""
