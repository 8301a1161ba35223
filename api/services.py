"""What a running API process holds: its database, its caches of keys and webhook senders, its group committer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from sqlalchemy import Engine
from starlette.requests import Request

from api.group_commit import GroupCommitter
from api.webhooks.senders import Senders
from operation_agent.access.keyring import KeyRing
from operation_agent.access.principal import Principal


@dataclass(slots=True)
class Services:
    engine: Engine
    keys: KeyRing
    committer: GroupCommitter
    senders: Senders
    look_ups: dict[str, asyncio.Future[Principal]] = field(default_factory=dict)

    async def close(self, *, dispose: bool) -> None:
        """At shutdown; `dispose` closes the database too."""
        await self.committer.close()
        if dispose:
            self.engine.dispose()


def services(request: Request) -> Services:
    """Of the app that serves this request."""
    return request.app.state.services
