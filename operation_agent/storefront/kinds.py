"""The changes there are: what each takes, whom it touches, whether it can be taken back, what it needs to be granted.

A storefront does those it knows (`protocol.Changes.kinds`); what a change takes is the same in every shop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from operation_agent.kit.errors import Rejected

from . import parameters as p
from .protocol import ChangeKind

_CUSTOMERS = ("write_customers",)
_ORDERS = ("write_orders",)
_PRODUCTS = ("write_products",)
_DRAFTS = ("write_draft_orders",)
_PAGES = ("write_online_store_pages",)
_METAOBJECTS = ("write_metaobjects", "write_metaobject_definitions")
_PUBLICATIONS = ("write_publications", "read_products")


@dataclass(frozen=True, slots=True)
class Kind:
    """`subject` and `of`: what is changed, and the parameter that names it (empty: something new is made).
    `scopes`: what a vendor must have granted. `filled_in`: parameters that are the moment of asking if left out."""

    name: str
    labels: Mapping[str, str]
    model: type[p.Parameters]
    example: Mapping[str, Any]
    scopes: Mapping[str, tuple[str, ...]]
    subject: str
    of: str = ""
    undoable: bool = True
    why_no_undo: Mapping[str, str] = field(default_factory=dict)
    filled_in: tuple[str, ...] = ()

    def described(self, vendor: str) -> ChangeKind:
        return ChangeKind(
            name=self.name, labels=self.labels,
            schema={**self.model.model_json_schema(), "title": self.labels["en"], "examples": [dict(self.example)]},
            undoable=self.undoable, why_no_undo=self.why_no_undo.get("en"), scopes=self.scopes.get(vendor, ()),
        )  # fmt: skip


def _kind(
    name: str, en: str, zh: str, model: type[p.Parameters], scopes: tuple[str, ...], subject: str, of: str,
    example: dict[str, Any], **more: Any,
) -> Kind:  # fmt: skip
    return Kind(name, {"en": en, "zh": zh}, model, example, {"shopify": scopes}, subject, of, **more)


_WORD = {"en": "a state that the customer never chose (not subscribed) cannot be set again",
         "zh": "无法恢复为客户从未选择过的状态(未订阅)"}  # fmt: skip
_MAIL = {
    "en": "an invoice that was sent by e-mail cannot be taken back; the draft order can",
    "zh": "已发送的账单邮件无法撤回,草稿订单可以删除",
}
_NEW_ID = {"en": "the page is made again, with a new id", "zh": "页面会重新创建,编号会改变"}

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        _kind("customer.tags", "Customer tags", "客户标签", p.CustomerTags, _CUSTOMERS, "customer", "customer_id",
              {"customer_id": "7001", "add": ["vip"], "remove": ["sleeping"]}),
        _kind("order.tags", "Order tags", "订单标签", p.OrderTags, _ORDERS, "order", "order_id",
              {"order_id": "9001", "add": ["gift"]}),
        _kind("product.tags", "Product tags", "商品标签", p.ProductTags, _PRODUCTS, "product", "product_id",
              {"product_id": "5001", "add": ["summer"]}),
        _kind("customer.metafields", "Customer metafields", "客户元字段", p.CustomerMetafields, _CUSTOMERS, "customer",
              "customer_id", {"customer_id": "7001", "metafields": [{"key": "last_offer", "value": "spring"}]}),
        _kind("order.metafields", "Order metafields", "订单元字段", p.OrderMetafields, _ORDERS, "order", "order_id",
              {"order_id": "9001", "metafields": [{"key": "handled_by", "value": "Li Wei"}]}),
        _kind("product.metafields", "Product metafields", "商品元字段", p.ProductMetafields, _PRODUCTS, "product",
              "product_id", {"product_id": "5001", "metafields": [{"key": "badge", "value": "new"}]}),
        _kind("customer.recommendations", "Recommended products", "推荐商品", p.Recommendations,
              (*_CUSTOMERS, "read_products"), "customer", "customer_id",
              {"customer_id": "7001", "product_ids": ["5001", "5002"]}),
        _kind("customer.vip", "VIP status", "VIP 身份", p.Vip, _CUSTOMERS, "customer", "customer_id",
              {"customer_id": "7001", "vip": True}),
        _kind("customer.agent", "Assigned agent", "专属客服", p.Agent, _CUSTOMERS, "customer", "customer_id",
              {"customer_id": "7001", "agent": "Li Wei"}),
        _kind("customer.consent", "Marketing consent", "营销许可", p.Consent, _CUSTOMERS, "customer", "customer_id",
              {"customer_id": "7001", "channel": "email", "state": "subscribed", "opt_in_level": "confirmed_opt_in"},
              why_no_undo=_WORD, filled_in=("consented_at",)),
        _kind("draft_order.create", "Draft order", "草稿订单", p.DraftOrder, _DRAFTS, "draft_order", "",
              {"customer_id": "7001", "lines": [{"variant_id": "6001", "quantity": 2}],
               "discount": {"kind": "percentage", "value": "10"}, "invoice": {"subject": "Your order"}},
              why_no_undo=_MAIL),
        _kind("product.text", "Product title, description and SEO", "商品标题、描述与 SEO", p.ProductText, _PRODUCTS,
              "product", "product_id", {"product_id": "5001", "title": "Linen shirt", "seo_title": "Linen shirts"}),
        _kind("product.price", "Product prices", "商品价格", p.Price, (*_PRODUCTS, "read_inventory"), "product",
              "product_id", {"product_id": "5001", "variants": [{"variant_id": "6001", "price": "17.90",
                                                                 "compare_at": "19.90"}]}),
        _kind("product.inventory_policy", "Selling when out of stock", "缺货销售策略", p.InventoryPolicy, _PRODUCTS,
              "product", "product_id", {"product_id": "5001", "policy": "continue"}),
        _kind("collection.create", "New collection", "新建商品系列", p.NewCollection, _PRODUCTS, "collection", "",
              {"title": "Summer", "product_ids": ["5001"], "sort_order": "manual"}),
        _kind("collection.update", "Collection title, description and SEO", "商品系列标题、描述与 SEO",
              p.CollectionChange, _PRODUCTS, "collection", "collection_id",
              {"collection_id": "8001", "title": "Late summer"}),
        _kind("collection.products", "Products of a collection", "商品系列中的商品", p.CollectionProducts, _PRODUCTS,
              "collection", "collection_id", {"collection_id": "8001", "add": ["5001"], "remove": ["5002"]}),
        _kind("collection.order", "Order of a collection's products", "商品系列排序", p.CollectionOrder, _PRODUCTS,
              "collection", "collection_id", {"collection_id": "8001", "product_ids": ["5002", "5001"]}),
        _kind("page.create", "New page", "新建页面", p.NewPage, _PAGES, "page", "",
              {"title": "Size guide", "body_html": "<p>…</p>", "published": False}),
        _kind("page.update", "Page text and visibility", "页面内容与可见性", p.PageChange, _PAGES, "page", "page_id",
              {"page_id": "4001", "published": True}),
        _kind("page.delete", "Delete a page", "删除页面", p.PageRemoval, _PAGES, "page", "page_id", {"page_id": "4001"},
              why_no_undo=_NEW_ID),
        _kind("home.banner", "Home-page banner", "首页横幅", p.Banner, _METAOBJECTS, "banner", "name",
              {"title": "Free shipping this week", "link_url": "/collections/all", "link_label": "Shop now"}),
        _kind("publication.set", "Publish or unpublish", "发布或下架", p.Publishing, _PUBLICATIONS, "publication",
              "product_id", {"product_id": "5001", "published": True}),
    )
}  # fmt: skip
"""`why_no_undo` of a kind that is undoable says which part of it is not."""

PRICES = "product.price"


def kind_of(name: str) -> Kind:
    """Raises Rejected, naming the kinds there are."""
    try:
        return KINDS[name]
    except KeyError:
        raise Rejected(
            f"there is no change {name[:60]!r}; there are {', '.join(KINDS)}", code="kind", where="kind", status=422
        ) from None


def read(name: str, written: Mapping[str, Any], *, at: datetime) -> dict[str, Any]:
    """The parameters as they are kept, complete. Raises Rejected (422) with every field at fault; `at` is shop time."""
    kind = kind_of(name)
    try:
        made = kind.model.model_validate(dict(written)).model_dump(mode="json")
    except ValidationError as error:
        errors = [
            {"where": ".".join(("parameters", *(str(part) for part in one["loc"]))), "code": one["type"],
             "reason": one["msg"]}
            for one in error.errors(include_url=False, include_input=False, include_context=False)
        ]  # fmt: skip
        first = errors[0]
        raise Rejected(
            f"{first['where']}: {first['reason']}", where=first["where"], errors=errors, status=422
        ) from None
    for filled in kind.filled_in:
        made[filled] = made.get(filled) or p.moment(at)
        if made[filled] > p.moment(at):
            where = f"parameters.{filled}"
            raise Rejected(f"{where}: {made[filled]} is still to come", where=where, status=422)
    return made


def subject_of(name: str, made: Mapping[str, Any]) -> str:
    """What the change touches, such as `product:5001`; of something new only its kind."""
    kind = kind_of(name)
    if name == "publication.set":
        which = "product" if made.get("product_id") else "collection"
        return f"{which}:{made[which + '_id']}"
    return f"{kind.subject}:{made[kind.of]}" if kind.of else kind.subject
