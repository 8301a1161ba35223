"""The one error tree, split by what the caller does about it.

Each border (HTTP, CLI, Celery) translates these once. `code` is stable and documented;
`detail` says what to do; `where` names the path, field, row or index at fault.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any


class AgentError(Exception):
    """Root of the tree; never raised itself."""

    code = "error"

    def __init__(self, detail: str, *, code: str | None = None, where: str | None = None, **extra: Any):
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.where = where
        self.extra = extra


class Retryable(AgentError):
    """The same call may succeed later; `retry_after` says when to try."""

    code = "unavailable"

    def __init__(self, detail: str, *, retry_after: timedelta = timedelta(seconds=1), **kwargs: Any):
        super().__init__(detail, **kwargs)
        self.retry_after = retry_after


class Rejected(AgentError):
    """The input is wrong and will be wrong again; change it."""

    code = "invalid"


class NotFound(AgentError):
    """What was named does not exist, or not for this caller."""

    code = "not_found"


class Conflict(AgentError):
    """The state forbids it now; read the state, then decide."""

    code = "conflict"


class Denied(AgentError):
    """No or not enough permission; `unauthenticated` tells 401 from 403."""

    code = "denied"

    def __init__(self, detail: str, *, unauthenticated: bool = False, **kwargs: Any):
        super().__init__(detail, **kwargs)
        self.unauthenticated = unauthenticated
