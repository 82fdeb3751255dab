"""Files that are on the disk when they are said to be, and whole or not there."""

import os
from pathlib import Path


def write_synced(path, data):
    """Write bytes, and wait until they are on the disk."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder):
    """Wait until the names in a folder are on the disk (Windows has no way to ask for that)."""
    if os.name != "nt":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_whole(path, data):
    """Write all of a file's bytes, or leave what was there: beside, synced and renamed. Creates its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".writing-{path.name}")
    try:
        write_synced(beside, data)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def link_whole(path, target):
    """Make `path` a symbolic link to its neighbour `target`, at once also where it was a link to another.

    Raises OSError where the system has no links, or keeps them for administrators.
    """
    beside = path.with_name(f".writing-{path.name}")
    beside.unlink(missing_ok=True)
    os.symlink(target.name, beside, target_is_directory=True)
    os.replace(beside, path)
