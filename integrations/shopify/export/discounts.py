"""Discounts with their codes, as a bulk query gives them."""

from __future__ import annotations

import re
from datetime import datetime

from integrations.shopify.reading import fields
from operation_agent.kit.errors import Rejected
from operation_agent.storefront.protocol import Exported
from operation_agent.storefront.records import Complete, Record

from . import nodes
from .objects import Piece

_TYPE = re.compile(r"Discount(Code|Automatic)(\w+)")
_NODES = ("DiscountNode", "DiscountCodeNode", "DiscountAutomaticNode")


def exported(piece: Piece, _currency: str, _received_at: datetime) -> Exported:
    """A discount with thousands of codes comes in pieces, the discount itself with the last. Raises Rejected."""
    discount_id = nodes.number_of(piece.node, *_NODES)
    said = fields.optional_object(piece.node, "discount") or {}
    kind = _TYPE.fullmatch(str(said.get("__typename")))
    if kind is None:
        raise Rejected(f"`discount` is of an unknown type {str(said.get('__typename'))[:60]}", where="discount")
    at = fields.instant(said, "updatedAt")
    values = {
        "title": fields.text(said, "title"), "status": nodes.word(said, "status"), "method": kind[1].lower(),
        "kind": re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind[2]).lower(),
        "starts_at": fields.optional_instant(said, "startsAt"), "ends_at": fields.optional_instant(said, "endsAt"),
        "usage_limit": fields.optional_whole(said, "usageLimit"),
        "used": fields.optional_whole(said, "asyncUsageCount"),
    }  # fmt: skip
    keys = [(discount_id, code) for one in piece.children if (code := _code(one))]
    itself = Record("discount", (discount_id,), at, values)
    if piece.is_first and piece.is_last:
        whole = Complete("discount_code", ("discount_id", discount_id), keys, at)
        return Exported(discount_id, at, piece.end, tellings=[itself, whole])
    codes = [Record("discount_code", key, at) for key in keys]
    if not piece.is_last:
        return Exported(discount_id, at, piece.start, tellings=codes, is_whole=False)
    return Exported(discount_id, at, piece.end, tellings=[itself, *codes])


def _code(node: nodes.Node) -> str | None:
    code = node.get("code")
    return code if isinstance(code, str) and 0 < len(code) <= fields.LONGEST_ID else None
