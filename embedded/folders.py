"""Folders of ours: made with mode 700, and never taken over from somebody else."""

from __future__ import annotations

import os
from pathlib import Path

from operation_agent.kit.errors import Rejected


def our_folder(path: Path) -> None:
    """Make the folder unless it is there. Raises Rejected, with what to set, when we cannot write in it."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise Rejected(
            f"cannot make the folder {path}: {error.strerror}; set OPAGENT_DATA_DIR to another one"
        ) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise Rejected(f"cannot write in the folder {path}; set OPAGENT_DATA_DIR to another one")
    # the socket of a long path lies below a shared temporary folder, where anybody may have been first
    if path.parent.stat().st_mode & 0o1002 == 0o1002 and path.stat().st_uid != os.geteuid():
        raise Rejected(f"the folder {path} belongs to somebody else; set OPAGENT_DATA_DIR to another one")
