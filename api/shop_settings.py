"""What may stand in a shop's settings. Workers read them without looking twice, so nothing else gets in."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from operation_agent.kit.errors import Rejected
from rules import cron, duration, limits
from rules.errors import RuleError


def _duration(value: str) -> str:
    duration.parse(value)
    return value


def _cron(value: str) -> str:
    cron.check(value)
    return value


Name = Annotated[str, Field(pattern=r"^[a-z][a-z_]{0,39}$")]
Minor = Annotated[int, Field(ge=0, le=10**12, description="Minor units of the shop's currency")]
Duration = Annotated[str, Field(max_length=40, examples=["P7D"]), AfterValidator(_duration)]
ClockTime = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", examples=["22:00"])]
Cron = Annotated[str, Field(max_length=100, examples=["15 3 * * *"]), AfterValidator(_cron)]


Job = Literal[
    "clustering.fit", "effects.compare", "segments.refresh", "estimators.fit", "strategies.propose",
    "storefront.refresh", "storefront.reconcile",
]  # fmt: skip
Amount = Annotated[Decimal, Field(ge=0, le=10**12, decimal_places=4, description="Units of the shop's currency")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class HardCap(_Part):
    count: int = Field(ge=0, le=1000)
    window: Duration


class Cap(_Part):
    """At most `count` marketing messages to one customer within any `window`, rolling."""

    count: int = Field(ge=1, le=1000)
    window: Duration
    channel: Name | None = Field(None, description="null: of every channel together")
    tag: str | None = Field(None, max_length=63, description="null: whatever they carry")
    scope: Literal["shop", "strategy"] = Field("shop", description="`strategy`: of each strategy by itself")


class QuietHours(_Part):
    """No marketing message goes out from `start` to `end` of the customer's own time zone, else the shop's."""

    start: ClockTime
    end: ClockTime
    otherwise: Literal["delay", "skip"] = "delay"


class Coupons(_Part):
    count: int | None = Field(None, ge=1, le=1000, description="Most coupons for one customer in `window`")
    window: Duration | None = Field(None, description="P30D unless given; goes with `count`")
    stacking: bool = Field(False, description="Whether one may be given while another is still out")


class Approval(_Part):
    """When people must say yes before anything goes out."""

    types: list[Name] = Field(default_factory=list, max_length=50, description="Action types that need a person's yes")
    above_minor: Minor | None = Field(None, description="Actions that cost more need one too; older than `cost_above`")
    cost_above: Decimal | None = Field(None, ge=0, le=10**12, description="The same in units of the shop's currency")
    percent_above: float | None = Field(None, ge=0, le=100, description="Coupons that are deeper")
    audience_above: int | None = Field(None, ge=0, le=10**9, description="What goes to more customers at once")
    approvers: int = Field(1, ge=1, le=10, description="How many different people, none of them its author")
    expires_in: Duration = Field("P3D", description="What is not approved by then is dropped")


class ClusteringOptions(_Part):
    k_min: int | None = Field(None, ge=2, le=50)
    k_max: int | None = Field(None, ge=2, le=50)
    smallest_share: float | None = Field(None, gt=0, lt=0.5)
    smallest_people: int | None = Field(None, ge=1, le=10**6)
    minimum_silhouette: float | None = Field(None, ge=-1, le=1)
    minimum_stability: float | None = Field(None, ge=0, le=1)


class ProposalOptions(_Part):
    """Of the strategies that the agent proposes for clusters, over 30 days."""

    budget: Amount | None = Field(None, description="What all of them together may commit")
    messages: Annotated[float, Field(ge=0, le=100)] | None = Field(None, description="To one customer, at most")
    strategies: Annotated[int, Field(ge=0, le=50)] | None = Field(None, description="At most so many at once")
    auto_start_below: Amount | None = Field(None, description="One that may commit less starts without a person's yes")


class SettingsChange(_Part):
    """Each setting that is given replaces the one before; null removes it, so that the default counts again."""

    language: Literal["en", "zh"] | None = Field(None, description="Of messages to customers who have none")
    country: str | None = Field(None, pattern=r"^[A-Z]{2}$", description="Of telephone numbers without a country code")
    typical_order_minor: Annotated[int, Field(ge=1, le=10**12)] | None = Field(
        None, description="Order expected of a customer who has not ordered yet"
    )
    free_shipping_minor: Annotated[int, Field(ge=1, le=10**12)] | None = Field(
        None, description="What sending an order costs, where a coupon of free shipping does not say its `worth`"
    )
    attribution_days: Annotated[int, Field(ge=1, le=365)] | None = Field(
        None, description="How long after a message an order counts as its outcome"
    )
    global_holdout: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="Share of customers that every strategy leaves alone"
    )
    costs: dict[Name, Minor] | None = Field(None, description="Of one action, by type")
    hard_caps: dict[Name, HardCap | None] | None = Field(
        None, description="Most messages per customer, by channel; null: none"
    )
    caps: list[Cap] | None = Field(None, max_length=50, description="Frequency caps of every strategy's messages")
    quiet_hours: QuietHours | None = None
    coupons: Coupons | None = None
    approval: Approval | None = None
    complaint_cooldown: Duration | None = Field(None, description="How long nothing goes to who complained")
    schedules: dict[Job, Cron | None] | None = Field(
        None, description="When the shop's own jobs run, in its time zone; null: never"
    )
    reconcile_days: Annotated[int, Field(ge=1, le=60)] | None = Field(
        None, description="How far the nightly comparison with the shop's own system looks back; 3 unless given"
    )
    clustering: ClusteringOptions | None = None
    proposals: ProposalOptions | None = None
    price_bound: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] | None = Field(
        None, description="Share by which a change may move a price at once, up or down; 0.3 unless given"
    )

    def changes(self) -> dict[str, Any]:
        """What was given, as it is stored. Raises Rejected for limits that contradict themselves."""
        given = self.model_dump(mode="json", exclude_unset=True)
        for name in ("caps", "quiet_hours", "coupons", "approval"):
            given |= {name: _without_nulls(given[name])} if given.get(name) else {}
        _check_limits(given)
        for name in ("clustering", "proposals"):
            if given.get(name):
                given[name] = {option: value for option, value in given[name].items() if value is not None}
        return given


def _check_limits(given: dict[str, Any]) -> None:
    """As the workers will read them: what passes here cannot stop them."""
    try:
        limits.parse_shop({name: value for name, value in given.items() if value is not None})
    except RuleError as error:
        raise Rejected(error.reason, where=f"settings.{error.where}") from None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nulls(one) for one in value]
    return {name: one for name, one in value.items() if one is not None} if isinstance(value, dict) else value
