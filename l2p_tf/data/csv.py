"""Images listed with their classes in a CSV file."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Sequence

from l2p_tf.data.base import DATASETS
from l2p_tf.data.image_files import ALL, ImageFiles, Item
from l2p_tf.data.own import TEST, TRAIN, VALIDATION
from l2p_tf.schema import reading
from l2p_tf.types import UserError

_FILE, _LABEL, _SPLIT = "file", "label", "split"


@DATASETS.register("csv")
@dataclasses.dataclass(frozen=True)
class Csv(ImageFiles):
    """Image files listed in a CSV file with the columns file, label and optionally split (train, validation or test).

    The first line names the columns; other columns are ignored. File names are relative to the folder of the CSV file.
    If all labels are whole numbers, they number the classes from 0; otherwise they are class names, sorted. Without a
    split, all are test images unless `test_share` is given.
    """

    def listed(self) -> dict[str, list[Item]]:
        """See `ImageFiles.listed`."""
        if not self.place.is_file():
            raise UserError(f"`path` should be a CSV file. Received: {self.path!r}")
        expected = "be a CSV file in UTF-8 with the columns file and label"
        listed: dict[str, list[Item]] = {}
        with reading(self.place, expected), self.place.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            columns = set(rows.fieldnames or ())
            if not {_FILE, _LABEL} <= columns:
                raise ValueError(f"its first line names {', '.join(sorted(columns)) or 'nothing'}")
            splits = (TRAIN, VALIDATION, TEST) if _SPLIT in columns else (ALL,)
            met = set()
            for row in rows:
                name, label, split = row[_FILE], row[_LABEL], row[_SPLIT] if _SPLIT in columns else ALL
                if not name or not label:
                    raise ValueError(f"line {rows.line_num} names no file or no label")
                if split not in splits:
                    raise ValueError(f"the split of line {rows.line_num} is {split!r}, not one of {', '.join(splits)}")
                if name in met:
                    raise ValueError(f"line {rows.line_num} names {name!r} again")
                met.add(name)
                if not (self.place.parent / name).is_file():  # Devices and pipes may be endless.
                    raise ValueError(f"line {rows.line_num} names {name!r}, which is no file there")
                listed.setdefault(split, []).append(Item(self.place.parent / name, label.strip()))
        return {split: listed[split] for split in splits if split in listed}

    def numbered(self, labels: Sequence[str]) -> tuple[tuple[str, ...], dict[str, int]]:
        """See `OwnImages.numbered`; numeric labels are class indices, unless `class_names` lists them as names."""
        if set(labels) <= set(self.class_names) or not all(re.fullmatch(r"\d{1,6}", label) for label in labels):
            return super().numbered(labels)
        numbers = {label: int(label) for label in labels}
        return self.names_up_to(1 + max(numbers.values())), numbers
