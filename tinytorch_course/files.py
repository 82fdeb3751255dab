"""Files that are whole or not there."""

import os
import tempfile
from pathlib import Path


def write(path, content):
    """Write all of a file, text or bytes, or nothing of it: beside, synced to disk, and renamed. Creates its folder.

    Raises OSError with the path and the reason; what was in the file before is then still there.
    """
    path, beside = Path(path), None
    content = content.encode("utf-8") if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            beside = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, _mode(path))
        os.replace(beside, path)
    except OSError as error:
        if beside:
            beside.unlink(missing_ok=True)
        raise OSError(
            error.errno,
            f"{path} could not be written ({error.strerror or error}). What it held before is untouched. "
            "Make room, or allow writing in its folder, and try again.",
        ) from error


def _mode(path):
    """The permissions of a file, or those that a new one gets (a temporary file is its owner's alone)."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
