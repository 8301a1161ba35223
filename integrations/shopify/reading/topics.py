"""Which topic is read by what. A topic that is not here is kept as it came."""

from __future__ import annotations

from collections.abc import Callable

from operation_agent.events.event import Event

from . import carts, catalogue, compliance, customers, discounts, fulfillments, keeping, orders, shop
from .fields import Body
from .telling import Webhook

Reader = Callable[[Body, Webhook], list[Event]]

READERS: dict[str, Reader] = {
    "orders/create": orders.created,
    "orders/updated": orders.changed,
    "orders/paid": orders.changed,
    "orders/cancelled": orders.changed,
    "orders/fulfilled": orders.changed,
    "orders/partially_fulfilled": orders.changed,
    "orders/delete": orders.deleted,
    "orders/edited": keeping.keep,  # the edit without the order; orders/updated comes with it
    "refunds/create": orders.refunded,
    "order_transactions/create": keeping.keep,
    "checkouts/create": carts.checkout_changed,
    "checkouts/update": carts.checkout_changed,
    "checkouts/delete": carts.checkout_deleted,
    "carts/create": carts.cart_changed,
    "carts/update": carts.cart_changed,
    "customers/create": customers.changed,
    "customers/update": customers.changed,
    "customers/enable": customers.changed,
    "customers/disable": customers.changed,
    "customers/delete": customers.deleted,
    "customers/merge": customers.merged,
    "customers_email_marketing_consent/update": customers.consent_changed,
    "customers_marketing_consent/update": customers.consent_changed,
    "customer.tags_added": customers.tagged,
    "customer.tags_removed": customers.tagged,
    "products/create": catalogue.product_changed,
    "products/update": catalogue.product_changed,
    "products/delete": catalogue.product_deleted,
    "variants/in_stock": catalogue.variant_stocked,
    "variants/out_of_stock": catalogue.variant_stocked,
    "inventory_levels/connect": catalogue.level_changed,
    "inventory_levels/update": catalogue.level_changed,
    "inventory_levels/disconnect": catalogue.level_disconnected,
    "inventory_items/update": catalogue.item_changed,
    "inventory_items/delete": catalogue.item_deleted,
    "collections/create": catalogue.collection_changed,
    "collections/update": catalogue.collection_changed,
    "collections/delete": catalogue.collection_deleted,
    "discounts/create": discounts.changed,
    "discounts/update": discounts.changed,
    "discounts/delete": discounts.deleted,
    "discounts/redeemcode_added": discounts.code_changed,
    "discounts/redeemcode_removed": discounts.code_changed,
    "fulfillments/create": fulfillments.changed,
    "fulfillments/update": fulfillments.changed,
    "bulk_operations/finish": keeping.keep,
    "app/uninstalled": shop.uninstalled,
    "app/scopes_update": shop.scopes_changed,
    "shop/update": shop.changed,
    "customers/data_request": compliance.data_request,
    "customers/redact": compliance.redact,
    "shop/redact": compliance.shop_redact,
}
