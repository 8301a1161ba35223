from __future__ import annotations


def import_file() -> None:
    raise NotImplementedError
