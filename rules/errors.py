"""What is wrong with a rule, and where in it."""

from __future__ import annotations


class RuleError(ValueError):
    """A definition that cannot be taken. `where` is the path in the tree (`rules[0].if.all[2].value`)."""

    def __init__(self, where: str, reason: str):
        super().__init__(f"{where}: {reason}" if where else reason)
        self.where = where
        self.reason = reason
