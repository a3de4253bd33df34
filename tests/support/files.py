"""What stages leave behind, as tests read it."""

from __future__ import annotations

import csv
import json


def read_json(path):
    """The content of a JSON file."""
    return json.loads(path.read_text("utf-8"))


def read_rows(path):
    """The rows of a CSV file, each a dictionary of texts."""
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))


def records_in(folder):
    """The records of an attack or transfer stage."""
    return read_json(folder / "results.json")["records"]


def untimed(row):
    """A row or a record without the seconds it took."""
    return {key: value for key, value in row.items() if key != "seconds"}
