"""What each change at a shop takes: the models that check a change when it is asked for and describe it to a form.

Ids are the shop's own numbers as text (they may exceed 2^53). Amounts are decimal text in the shop's currency.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

MOST_VARIANTS = 250
MOST_PRODUCTS = 250


def _storable(value: str) -> str:
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("NUL characters and halves of surrogate pairs cannot be stored")
    return value


def moment(at: datetime) -> str:
    """As parameters hold an instant: ISO 8601, UTC, whole seconds."""
    return at.astimezone(UTC).replace(microsecond=0).isoformat()


def _distinct(values: list[Any]) -> list[Any]:
    if len({str(value).casefold() for value in values}) != len(values):
        raise ValueError("the same value stands in it twice")
    return values


def _amount(value: object) -> object:
    if isinstance(value, bool | float):
        raise ValueError('an amount is decimal text, such as "19.90"')
    return value


Text = Annotated[str, AfterValidator(_storable)]
Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255), AfterValidator(_storable)]
Prose = Annotated[Text, Field(max_length=5000)]
Html = Annotated[Text, Field(max_length=100_000, description="HTML; the shop removes what it does not allow")]
Id = Annotated[
    str, Field(pattern=r"^[0-9]{1,20}$", description="The shop's own id, without gid://…", examples=["7001"])
]
Tag = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=40, pattern=r"^[^,]+$"),
    AfterValidator(_storable),
]
Tags = Annotated[list[Tag], Field(max_length=100), AfterValidator(_distinct)]
Ids = Annotated[list[Id], Field(max_length=MOST_PRODUCTS), AfterValidator(_distinct)]
Handle = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,99}$", description="Last part of its address")]
Url = Annotated[Text, Field(max_length=2000, pattern=r"^(https://[^\s]+|/[^\s]*)$", examples=["/collections/sale"])]
Moment = Annotated[AwareDatetime, PlainSerializer(lambda at: moment(at))]
Amount = Annotated[
    Decimal,
    BeforeValidator(_amount),
    Field(ge=0, le=10**9, max_digits=13, decimal_places=3, description="In the shop's currency", examples=["19.90"]),
    PlainSerializer(str),
]


class Parameters(BaseModel):
    """Base of all: nothing but what is named, and texts are not made into numbers."""

    model_config = ConfigDict(extra="forbid", defer_build=True)  # most processes never check any

    def _needs_one_of(self, *names: str) -> None:
        if all(getattr(self, name) in (None, []) for name in names):
            raise ValueError(f"give at least one of {', '.join(names)}")


class _Tagging(Parameters):
    add: Tags = Field(default_factory=list, examples=[["vip"]])
    remove: Tags = Field(default_factory=list)

    @model_validator(mode="after")
    def _something(self) -> _Tagging:
        self._needs_one_of("add", "remove")
        both = {tag.casefold() for tag in self.add} & {tag.casefold() for tag in self.remove}
        if both:
            raise ValueError(f"{min(both)!r} is both added and removed")
        return self


class CustomerTags(_Tagging):
    customer_id: Id


class OrderTags(_Tagging):
    order_id: Id


class ProductTags(_Tagging):
    product_id: Id


class Metafield(Parameters):
    """`value` null removes it."""

    namespace: str = Field("opagent", pattern=r"^[A-Za-z0-9_-]{3,255}$")
    key: str = Field(pattern=r"^[A-Za-z0-9_-]{2,64}$", examples=["last_offer"])
    type: str = Field("single_line_text_field", pattern=r"^[a-z][a-z0-9_.]{1,63}$", examples=["json", "boolean"])
    value: Annotated[Text, Field(min_length=1, max_length=60_000)] | None = None


class _Metafields(Parameters):
    metafields: list[Metafield] = Field(min_length=1, max_length=25)

    @model_validator(mode="after")
    def _once(self) -> _Metafields:
        names = [(one.namespace, one.key) for one in self.metafields]
        if len(set(names)) != len(names):
            raise ValueError("the same metafield stands in it twice")
        return self


class CustomerMetafields(_Metafields):
    customer_id: Id


class OrderMetafields(_Metafields):
    order_id: Id


class ProductMetafields(_Metafields):
    product_id: Id


class Recommendations(Parameters):
    """Which products the shop shows to this customer, the best one first; none: nothing is recommended any more."""

    customer_id: Id
    product_ids: Annotated[list[Id], Field(max_length=128), AfterValidator(_distinct)]


class Vip(Parameters):
    customer_id: Id
    vip: bool


class Agent(Parameters):
    """Who looks after this customer; null: nobody in particular."""

    customer_id: Id
    agent: Line | None = Field(examples=["Li Wei"])


class Consent(Parameters):
    """What the customer said about marketing. It must be their own word: keep the proof of it."""

    customer_id: Id
    channel: Literal["email", "sms"]
    state: Literal["subscribed", "unsubscribed", "pending"]
    opt_in_level: Literal["single_opt_in", "confirmed_opt_in", "unknown"] = "single_opt_in"
    consented_at: Moment | None = Field(None, description="When they said so; the moment of asking if left out")

    @model_validator(mode="after")
    def _confirmable(self) -> Consent:
        if self.state == "pending" and self.opt_in_level != "confirmed_opt_in":
            raise ValueError("`pending` waits for a confirmation: opt_in_level is confirmed_opt_in")
        return self


class DraftLine(Parameters):
    """A variant of the shop, or something of its own with a title and a price."""

    variant_id: Id | None = None
    title: Line | None = None
    price: Amount | None = None
    quantity: int = Field(1, ge=1, le=10_000, strict=True)

    @model_validator(mode="after")
    def _one_or_other(self) -> DraftLine:
        own = self.title is not None and self.price is not None
        if (self.variant_id is None) != own or (self.variant_id and (self.title or self.price is not None)):
            raise ValueError("a line has either `variant_id` or `title` and `price`")
        return self


class DraftDiscount(Parameters):
    kind: Literal["percentage", "amount"]
    value: Amount = Field(description="Per cent, or an amount in the shop's currency")
    title: Line = "Discount"

    @model_validator(mode="after")
    def _at_most_all(self) -> DraftDiscount:
        if self.kind == "percentage" and self.value > 100:
            raise ValueError("a percentage is at most 100")
        return self


class Invoice(Parameters):
    subject: Line | None = None
    message: Prose | None = None


class DraftOrder(Parameters):
    customer_id: Id | None = None
    email: Annotated[Text, Field(max_length=320, pattern=r"^[^@\s]+@[^@\s]+$")] | None = None
    lines: list[DraftLine] = Field(min_length=1, max_length=250)
    discount: DraftDiscount | None = None
    note: Prose | None = None
    tags: Tags = Field(default_factory=list)
    invoice: Invoice | None = Field(None, description="Send it by e-mail too: what is sent cannot be taken back")

    @model_validator(mode="after")
    def _reachable(self) -> DraftOrder:
        if self.invoice is not None and self.customer_id is None and self.email is None:
            raise ValueError("an invoice needs a customer_id or an email")
        return self


class _Texts(Parameters):
    title: Line | None = None
    description_html: Html | None = None
    seo_title: Annotated[Text, Field(max_length=255)] | None = None
    seo_description: Annotated[Text, Field(max_length=1000)] | None = None


class ProductText(_Texts):
    product_id: Id

    @model_validator(mode="after")
    def _something(self) -> ProductText:
        self._needs_one_of("title", "description_html", "seo_title", "seo_description")
        return self


class VariantPrice(Parameters):
    """`compare_at` left out stays as it is; null takes it away."""

    variant_id: Id
    price: Amount
    compare_at: Amount | None = None

    @model_serializer(mode="wrap")
    def _as_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        return {name: value for name, value in written.items() if name in self.model_fields_set}


class Price(Parameters):
    """Either `variants`, or `percent` on all variants of the product. The setting price_bound limits it."""

    product_id: Id
    variants: list[VariantPrice] | None = Field(None, min_length=1, max_length=MOST_VARIANTS)
    percent: Annotated[float, Field(gt=-100, le=1000, allow_inf_nan=False)] | None = Field(
        None, description="-10: ten per cent less", examples=[-10]
    )

    @model_validator(mode="after")
    def _one_way(self) -> Price:
        if (self.variants is None) == (self.percent is None):
            raise ValueError("give either `variants` or `percent`")
        if self.variants is not None:
            _distinct([one.variant_id for one in self.variants])
        return self


class InventoryPolicy(Parameters):
    product_id: Id
    variant_ids: (
        Annotated[list[Id], Field(min_length=1, max_length=MOST_VARIANTS), AfterValidator(_distinct)] | None
    ) = Field(None, description="All variants of the product if left out")
    policy: Literal["deny", "continue"] = Field(description="`continue`: goes on selling when there is none left")


Sorting = Literal[
    "manual", "best_selling", "alpha_asc", "alpha_desc", "price_asc", "price_desc", "created", "created_desc"
]  # fmt: skip


class NewCollection(_Texts):
    title: Line
    handle: Handle | None = None
    sort_order: Sorting = "best_selling"
    product_ids: Ids = Field(default_factory=list)


class CollectionChange(_Texts):
    collection_id: Id
    sort_order: Sorting | None = None

    @model_validator(mode="after")
    def _something(self) -> CollectionChange:
        self._needs_one_of("title", "description_html", "seo_title", "seo_description", "sort_order")
        return self


class CollectionProducts(Parameters):
    collection_id: Id
    add: Ids = Field(default_factory=list)
    remove: Ids = Field(default_factory=list)

    @model_validator(mode="after")
    def _something(self) -> CollectionProducts:
        self._needs_one_of("add", "remove")
        if set(self.add) & set(self.remove):
            raise ValueError(f"{min(set(self.add) & set(self.remove))} is both added and removed")
        return self


class CollectionOrder(Parameters):
    """Puts these products first, in this order; the others stay in theirs. Only where sorting is manual."""

    collection_id: Id
    product_ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_PRODUCTS), AfterValidator(_distinct)]


class NewPage(Parameters):
    title: Line
    body_html: Html
    handle: Handle | None = None
    published: bool = True


class PageChange(Parameters):
    page_id: Id
    title: Line | None = None
    body_html: Html | None = None
    published: bool | None = None

    @model_validator(mode="after")
    def _something(self) -> PageChange:
        self._needs_one_of("title", "body_html", "published")
        return self


class PageRemoval(Parameters):
    page_id: Id


class Banner(Parameters):
    """What the theme shows on top of the home page; docs/howto/change-the-shop.md has the lines for the theme."""

    name: str = Field(
        "home", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="Which banner: a theme may show several"
    )
    visible: bool = True
    title: Line
    text: Prose = ""
    link_url: Url | None = None
    link_label: Line | None = None
    image_url: Annotated[Text, Field(max_length=2000, pattern=r"^https://[^\s]+$")] | None = None


class Publishing(Parameters):
    product_id: Id | None = None
    collection_id: Id | None = None
    publication: Line = Field("Online Store", description="Name or id of the sales channel's publication")
    published: bool

    @model_validator(mode="after")
    def _one_thing(self) -> Publishing:
        if (self.product_id is None) == (self.collection_id is None):
            raise ValueError("give either `product_id` or `collection_id`")
        return self
