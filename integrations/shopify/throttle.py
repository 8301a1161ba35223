"""A shop's cost allowance as a leaky bucket that all workers of all processes share through Redis.

Shopify takes an operation's requested cost from the bucket, and restores so many points a second
(https://shopify.dev/docs/api/usage/rate-limits). We keep the same account ahead of it: who takes is told how long to
wait and goes in turn, since the level may go below zero for those who wait already. What the API tells after each call
corrects the account; what others have taken and not yet spent is held back from it. Before it has told anything (of a
new shop, or when Redis was emptied) nothing is held back: the first answer tells.

Redis only speeds this up: without it each process keeps an account of its own, and Shopify's THROTTLED does the rest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from operation_agent.kit.clock import monotonic
from operation_agent.kit.ids import new_id
from operation_agent.kit.logging import logger

from .errors import Throttled

if TYPE_CHECKING:
    from redis import Redis

log = logger(__name__)

HELD = timedelta(seconds=30)
"""How long what was taken counts as on its way, when nobody tells what became of it."""
_KEPT_SECONDS = 3600
_REDIS_AWAY = timedelta(seconds=5)


class Bucket(Protocol):
    """The shop's cost allowance, shared by everybody who calls it."""

    def take(self, cost: float, *, patience: timedelta) -> str:
        """Wait at most `patience` until there is room, and take it; the receipt goes to `learn`. Raises Throttled."""
        ...

    def learn(self, *, maximum: float, available: float, restore_rate: float, receipt: str | None = None) -> None:
        """What the API itself said is left, after the call for which `receipt` was given."""
        ...


@dataclass
class Account:
    """The arithmetic, with the time as an argument (seconds on any clock). Not thread-safe; TAKE and LEARN below are
    the same in Lua. `maximum` is None until the API has told."""

    maximum: float | None = None
    rate: float = 0.0
    level: float = 0.0
    at: float = 0.0
    held: dict[str, tuple[float, float]] = field(default_factory=dict)

    def take(self, cost: float, patience: float, receipt: str, *, now: float) -> tuple[bool, float]:
        """Whether it was taken, and how many seconds to wait: before calling, or before asking again."""
        wait = 0.0
        if self.maximum is not None:
            self.level = min(self.maximum, self.level + max(0.0, now - self.at) * self.rate)
            self.at, cost = now, min(cost, self.maximum)
            wait = max(0.0, (cost - self.level) / self.rate)
            if wait > patience:
                return False, wait
            self.level -= cost
        self.held[receipt] = (cost, now + wait + HELD.total_seconds())
        return True, wait

    def learn(self, maximum: float, available: float, rate: float, receipt: str | None, *, now: float) -> None:
        if receipt is not None:
            self.held.pop(receipt, None)
        self.held = {name: one for name, one in self.held.items() if one[1] > now}
        self.maximum, self.rate, self.at = maximum, rate, now
        self.level = min(available, maximum) - sum(cost for cost, _ in self.held.values())


class LocalBucket:
    """One process's account, for all its threads."""

    def __init__(self, *, clock: Callable[[], float] = monotonic, sleep: Callable[[float], None] = time.sleep):
        self._account, self._lock = Account(), threading.Lock()
        self._clock, self._sleep = clock, sleep

    def take(self, cost: float, *, patience: timedelta) -> str:
        receipt = new_id().hex
        with self._lock:
            taken, wait = self._account.take(cost, patience.total_seconds(), receipt, now=self._clock())
        return _waited(taken, wait, receipt, self._sleep)

    def learn(self, *, maximum: float, available: float, restore_rate: float, receipt: str | None = None) -> None:
        with self._lock:
            self._account.learn(maximum, available, restore_rate, receipt, now=self._clock())


@cache
def of_process(host: str) -> LocalBucket:
    """The account of one shop domain that everybody in this process shares."""
    return LocalBucket()


# A Redis before 7 wants to be told that a script which reads the time replicates its writes, not itself.
_BEGIN = """
if redis.replicate_commands then redis.replicate_commands() end
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local level, maximum, rate
local function keep()
  if maximum then
    redis.call('HSET', KEYS[1], 'level', tostring(level), 'at', string.format('%.6f', now),
               'maximum', tostring(maximum), 'rate', tostring(rate))
    redis.call('EXPIRE', KEYS[1], ARGV[1])
  end
  redis.call('EXPIRE', KEYS[2], ARGV[1])
end
"""

TAKE = (
    _BEGIN
    + """
local known = redis.call('HMGET', KEYS[1], 'level', 'at', 'maximum', 'rate')
local cost, wait = tonumber(ARGV[2]), 0
if known[3] then
  maximum, rate = tonumber(known[3]), tonumber(known[4])
  level = math.min(maximum, tonumber(known[1]) + math.max(0, now - tonumber(known[2])) * rate)
  cost = math.min(cost, maximum)
  wait = math.max(0, (cost - level) / rate)
  if wait > tonumber(ARGV[3]) then return {0, tostring(wait)} end
  level = level - cost
end
redis.call('ZADD', KEYS[2], string.format('%.6f', now + wait + tonumber(ARGV[5])), ARGV[4] .. ':' .. tostring(cost))
keep()
return {1, tostring(wait)}
"""
)

LEARN = (
    _BEGIN
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.6f', now))
maximum, rate = tonumber(ARGV[2]), tonumber(ARGV[4])
level = math.min(tonumber(ARGV[3]), maximum)
for _, held in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  local receipt, cost = string.match(held, '^(.*):(.*)$')
  if receipt == ARGV[5] then redis.call('ZREM', KEYS[2], held) else level = level - tonumber(cost) end
end
keep()
return tostring(level)
"""
)


class SharedBucket:
    """The account of one shop domain in Redis, by Redis's own clock; in this process while Redis is away."""

    def __init__(self, redis: Redis, host: str, *, sleep: Callable[[float], None] = time.sleep):
        name = f"opagent:shopify:{{{host}}}"  # the braces keep both keys on one node of a cluster
        self._keys = [f"{name}:cost", f"{name}:held"]
        self._take, self._learn = redis.register_script(TAKE), redis.register_script(LEARN)
        self._local = of_process(host)
        self._sleep = sleep
        self._away_until = 0.0

    def take(self, cost: float, *, patience: timedelta) -> str:
        receipt = new_id().hex
        told = self._ask(self._take, cost, patience.total_seconds(), receipt, HELD.total_seconds())
        if told is None:
            return self._local.take(cost, patience=patience)
        return _waited(bool(told[0]), float(told[1]), receipt, self._sleep)

    def learn(self, *, maximum: float, available: float, restore_rate: float, receipt: str | None = None) -> None:
        self._local.learn(maximum=maximum, available=available, restore_rate=restore_rate, receipt=receipt)
        self._ask(self._learn, maximum, available, restore_rate, receipt or "")

    def _ask(self, script: Any, *given: float | str) -> Any:
        """The script's answer, or None while Redis is away (asked again every few seconds, so that nobody waits)."""
        from redis.exceptions import RedisError

        if monotonic() < self._away_until:
            return None
        try:
            return script(self._keys, [_KEPT_SECONDS, *given])
        except (RedisError, OSError) as error:
            self._away_until = monotonic() + _REDIS_AWAY.total_seconds()
            log.warning("cost_bucket_not_shared", reason=f"{type(error).__name__}: {error}"[:200])
            return None


def _waited(taken: bool, wait: float, receipt: str, sleep: Callable[[float], None]) -> str:
    if not taken:
        raise Throttled("the shop's cost allowance is used up for now", retry_after=timedelta(seconds=wait))
    if wait > 0:
        sleep(wait)
    return receipt
