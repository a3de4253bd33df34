"""Small disks, which a test may fill, enlarge and make read-only."""

import contextlib
import os
import pathlib
import subprocess

import pytest


class Disk:
    """A file system in memory at a folder."""

    def __init__(self, place):
        self.place = pathlib.Path(place)

    def set(self, *options):
        """Changes its size or whether it can be written to."""
        subprocess.run(["mount", "-o", ",".join(["remount", *options]), self.place], check=True, capture_output=True)

    @property
    def used(self):
        """Bytes that are taken."""
        found = os.statvfs(self.place)
        return (found.f_blocks - found.f_bfree) * found.f_frsize


@contextlib.contextmanager
def disk(place, size="256m"):
    """A disk of a size, or a skipped test where none can be mounted."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
    try:
        made = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("needs the right to mount a file system")
    try:
        yield Disk(place)
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
