"""Files that are written whole or not at all."""

import os
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: Path, text: str) -> None:
    """Writes a text file so that a process killed at any point leaves the old content or the new one.

    Args:
        path: the file, in a folder that exists.
        text: its whole content.

    Raises:
        OSError: the disk is full, or the folder cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "rows.json")
        >>> write_whole(path, "16")
        >>> path.read_text()
        '16'
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # the rename below must not reach the disk before the content does
    os.replace(partial, path)
