"""Directories that other users of the machine can reach, as QEMU's and the database servers' own must."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def open_place(what: str) -> Iterator[Path]:
    """A directory that everybody may pass, and that goes with the test.

    Not one of pytest's: each start of pytest closes the way to those for everybody but its own user.
    """
    with tempfile.TemporaryDirectory(prefix=f"kilonova-{what}-", dir="/var/tmp", ignore_cleanup_errors=True) as name:
        place = Path(name)
        place.chmod(0o755)
        yield place
