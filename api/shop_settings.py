"""What may stand in a shop's settings. Workers read them without looking twice, so nothing else gets in."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rules import cron, duration


def _duration(value: str) -> str:
    duration.parse(value)
    return value


def _cron(value: str) -> str:
    cron.check(value)
    return value


Name = Annotated[str, Field(pattern=r"^[a-z][a-z_]{0,39}$")]
Minor = Annotated[int, Field(ge=0, le=10**12, description="Minor units of the shop's currency")]
Duration = Annotated[str, Field(max_length=40, examples=["P7D"]), AfterValidator(_duration)]
Cron = Annotated[str, Field(max_length=100, examples=["15 3 * * *"]), AfterValidator(_cron)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class HardCap(_Part):
    count: int = Field(ge=0, le=1000)
    window: Duration


class Approval(_Part):
    types: list[Name] = Field(default_factory=list, max_length=50, description="Action types that need a person's yes")
    above_minor: Minor | None = Field(None, description="Actions that cost more need one too")


class ClusteringOptions(_Part):
    k_min: int | None = Field(None, ge=2, le=50)
    k_max: int | None = Field(None, ge=2, le=50)
    smallest_share: float | None = Field(None, gt=0, lt=0.5)
    smallest_people: int | None = Field(None, ge=1, le=10**6)
    minimum_silhouette: float | None = Field(None, ge=-1, le=1)
    minimum_stability: float | None = Field(None, ge=0, le=1)


class SettingsChange(_Part):
    """Each setting that is given replaces the one before; null removes it, so that the default counts again."""

    language: Literal["en", "zh"] | None = Field(None, description="Of messages to customers who have none")
    country: str | None = Field(None, pattern=r"^[A-Z]{2}$", description="Of telephone numbers without a country code")
    typical_order_minor: Annotated[int, Field(ge=1, le=10**12)] | None = Field(
        None, description="Order expected of a customer who has not ordered yet"
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
    approval: Approval | None = None
    schedules: dict[Literal["clustering.fit", "effects.compare"], Cron | None] | None = Field(
        None, description="When the shop's own jobs run, in its time zone; null: never"
    )
    clustering: ClusteringOptions | None = None

    def changes(self) -> dict[str, Any]:
        """What was given, as it is stored."""
        given = self.model_dump(mode="json", exclude_unset=True)
        if given.get("clustering"):
            given["clustering"] = {name: value for name, value in given["clustering"].items() if value is not None}
        return given
