"""What the app must be granted, and what is missing of it. That writing implies reading is ShopifyAPI's knowledge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client import Shopify

CHANNEL_SCOPES: tuple[str, ...] = ("write_discounts",)
"""Without these no action of the coupon channel can be sent at all."""


@dataclass(frozen=True, slots=True)
class Feature:
    """Something the agent does at a shop, and the scopes it takes. `optional`: everything else works without it."""

    labels: Mapping[str, str]
    scopes: tuple[str, ...]
    optional: bool = False


FEATURES: Mapping[str, Feature] = {
    "orders": Feature(
        {"en": "Orders, carts, refunds and fulfilments", "zh": "订单、购物车、退款与发货"},
        ("write_orders", "read_fulfillments"),
    ),
    "customers": Feature(
        {"en": "Customers, their tags and consents", "zh": "客户、标签与营销许可"}, ("write_customers",)
    ),
    "products": Feature({"en": "Products, prices and collections", "zh": "商品、价格与商品系列"}, ("write_products",)),
    "inventory": Feature({"en": "Stock by location", "zh": "各地点库存"}, ("read_inventory", "read_locations")),
    "discounts": Feature({"en": "Coupons and discounts", "zh": "优惠券与折扣"}, ("write_discounts",)),
    "draft_orders": Feature({"en": "Draft orders", "zh": "草稿订单"}, ("write_draft_orders",)),
    "content": Feature({"en": "Pages of the online store", "zh": "在线商店页面"}, ("write_online_store_pages",)),
    "publications": Feature({"en": "Sales channels of a product", "zh": "商品发布渠道"}, ("write_publications",)),
    "metaobjects": Feature(
        {"en": "The home page's banner", "zh": "首页横幅"}, ("write_metaobjects", "write_metaobject_definitions")
    ),
    "all_orders": Feature(
        {"en": "Orders older than 60 days (Shopify must approve it)", "zh": "60 天以前的订单（需 Shopify 批准）"},
        ("read_all_orders",),
        optional=True,
    ),
}

_BY_TOPIC: Mapping[str, str] = {
    "orders": "read_orders",
    "order_transactions": "read_orders",
    "refunds": "read_orders",
    "checkouts": "read_orders",
    "carts": "read_orders",
    "customers": "read_customers",
    "customer": "read_customers",
    "customers_email_marketing_consent": "read_customers",
    "customers_marketing_consent": "read_customers",
    "products": "read_products",
    "variants": "read_products",
    "collections": "read_products",
    "inventory_items": "read_inventory",
    "inventory_levels": "read_inventory",
    "discounts": "read_discounts",
    "fulfillments": "read_fulfillments",
    "draft_orders": "read_draft_orders",
    "locations": "read_locations",
}
_OF_ONE_TOPIC = {"customers/merge": "read_customer_merge"}


def requested(*, optional: bool = False) -> list[str]:
    """What an app asks for when it is connected. The optional ones must be granted to the app by Shopify first, or the
    whole request is refused."""
    return sorted({scope for one in FEATURES.values() if optional or not one.optional for scope in one.scopes})


def of_topic(topic: str) -> str | None:
    """The scope that a webhook topic takes, by the topic's documentation; None: it takes none."""
    return _OF_ONE_TOPIC.get(topic) or _BY_TOPIC.get(topic.replace(".", "/").split("/")[0])


def lacking(granted: Iterable[str], needed: Iterable[str]) -> list[str]:
    """Those of `needed` that `granted` neither names nor implies, sorted."""
    from shopify.api_access import ApiAccess

    # ApiAccess refuses names of a form it does not know, such as customer_read_orders
    held = ApiAccess([scope for scope in granted if ApiAccess.SCOPE_RE.match(scope)])
    return sorted({scope for scope in needed if not held.covers(ApiAccess([scope]))})


def lacking_by_feature(granted: Sequence[str], *, optional: bool = True) -> dict[str, list[str]]:
    """Feature -> the scopes it lacks; features that lack none are left out, and on demand the optional ones."""
    asked = {name: one for name, one in FEATURES.items() if optional or not one.optional}
    found = {name: lacking(granted, feature.scopes) for name, feature in asked.items()}
    return {name: scopes for name, scopes in found.items() if scopes}


@dataclass(frozen=True, slots=True)
class Installation:
    """The app as it is installed at the shop. `webhook_version` is what its webhooks are written in."""

    scopes: tuple[str, ...]
    app: str | None
    webhook_version: str | None


def installation(client: Shopify) -> Installation:
    """Asks the shop; takes no scope. Raises the errors of `errors`."""
    found = client.query("current_app_installation").get("currentAppInstallation") or {}
    app = found.get("app") or {}
    handles = tuple(sorted(str(one["handle"]) for one in found.get("accessScopes") or ()))
    return Installation(handles, app.get("title"), app.get("webhookApiVersion"))
