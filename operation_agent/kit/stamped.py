"""What was made of rows that seldom change, kept per process for as long as their stamp is the same."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Stamped(Generic[Value]):
    """At most `most` values, the least recently used going first. Threads may share it."""

    def __init__(self, most: int):
        self._most = most
        self._kept: OrderedDict[Hashable, tuple[Hashable, Value]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, stamp: Hashable, load: Callable[[], Value]) -> Value:
        """The value kept under `key` with this very stamp; otherwise what `load` makes, kept from now on."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None and found[0] == stamp:
                self._kept.move_to_end(key)
                return found[1]
        loaded = load()
        with self._lock:
            self._kept[key] = (stamp, loaded)
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return loaded
