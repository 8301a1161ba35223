"""The shop's catalogue as we know it: products with variants and stock, collections, discounts with their codes.

Read from the mirror; what is gone at the shop is left out, and so is what was only heard of by name. Lists go by id, so
that a page never skips or repeats. Money is minor units of the shop's currency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.kit.errors import NotFound

_HERE = "{0}.shop_id = :shop AND {0}.deleted_at IS NULL AND {0}.source_updated_at IS NOT NULL"

_COLUMNS = (
    "p.product_id, p.title, p.handle, p.vendor, p.product_type, p.status, COALESCE(p.tags, '{}') AS tags, p.image_url,"
    " p.published_at, p.source_updated_at AS updated_at"
)
_OF_VARIANTS = f"""
LEFT JOIN LATERAL (
  SELECT count(*)::int AS variants, min(v.price_minor) AS lowest_minor, max(v.price_minor) AS highest_minor,
         sum(v.inventory_quantity)::bigint AS inventory
  FROM variants v WHERE {_HERE.format("v")} AND v.product_id = p.product_id) AS v ON true"""  # noqa: S608 - our texts
_PRODUCTS = text(f"""
SELECT {_COLUMNS}, v.* FROM products p {_OF_VARIANTS}
WHERE {_HERE.format("p")}
  AND (CAST(:after AS text) IS NULL OR p.product_id COLLATE "C" > :after)
  AND (CAST(:status AS text) IS NULL OR lower(p.status) = lower(:status))
  AND (CAST(:collection AS text) IS NULL OR EXISTS (
    SELECT 1 FROM collection_products c WHERE {_HERE.format("c")} AND c.collection_id = :collection
                                          AND c.product_id = p.product_id))
  AND (CAST(:pattern AS text) IS NULL OR p.title ILIKE :pattern OR p.product_id IN (
    SELECT s.product_id FROM variants s WHERE {_HERE.format("s")} AND lower(s.sku) ^@ lower(:q)))
ORDER BY p.product_id COLLATE "C" LIMIT :limit
""")  # noqa: S608 - our texts


def products(
    session: Session,
    shop_id: UUID,
    *,
    q: str | None = None,
    status: str | None = None,
    collection_id: str | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Sequence[Row[Any]]:
    """Products whose title has `q` in it or one of whose SKUs begins with it, of a status, in a collection, by id."""
    return session.execute(
        _PRODUCTS,
        {
            "shop": shop_id, "q": q, "pattern": _containing(q), "status": status, "collection": collection_id,
            "after": after, "limit": limit,
        },
    ).all()  # fmt: skip


def _containing(q: str | None) -> str | None:
    if not q:
        return None
    escaped = q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


_PRODUCT = text(f"""
SELECT {_COLUMNS}, p.seo_title, p.seo_description, v.* FROM products p {_OF_VARIANTS}
WHERE {_HERE.format("p")} AND p.product_id = :id
""")  # noqa: S608 - our texts
_VARIANTS = text(f"""
SELECT v.variant_id, v.title, v.sku, v.barcode, v.price_minor, v.compare_at_minor, v.position, v.inventory_item_id,
       v.inventory_quantity, v.inventory_policy, v.source_updated_at AS updated_at, COALESCE((
         SELECT jsonb_agg(jsonb_build_object('location_id', l.location_id, 'available', l.available,
                                             'updated_at', l.source_updated_at) ORDER BY l.location_id)
         FROM inventory_levels l WHERE {_HERE.format("l")} AND l.inventory_item_id = v.inventory_item_id), '[]')
       AS levels
FROM variants v WHERE {_HERE.format("v")} AND v.product_id = :id ORDER BY v.position, v.variant_id
""")  # noqa: S608 - our texts
_IN_COLLECTIONS = text(f"""
SELECT k.collection_id, k.title FROM collection_products c
JOIN collections k ON k.shop_id = c.shop_id AND k.collection_id = c.collection_id
WHERE {_HERE.format("c")} AND {_HERE.format("k")} AND c.product_id = :id ORDER BY k.title, k.collection_id
""")  # noqa: S608 - our texts


def product(session: Session, shop_id: UUID, product_id: str) -> Mapping[str, Any]:
    """One product with its `variants`, each with its stock by location (`levels`), and its `collections`.

    Raises NotFound.
    """
    values = {"shop": shop_id, "id": product_id}
    row = session.execute(_PRODUCT, values).one_or_none()
    if row is None:
        raise NotFound(f"there is no product {product_id[:80]!r}, as far as the shop told us; a sync asks it again")
    variants = [one._asdict() for one in session.execute(_VARIANTS, values)]
    of = [one._asdict() for one in session.execute(_IN_COLLECTIONS, values)]
    return {**row._asdict(), "variants": variants, "collections": of}


_COLLECTIONS = text(f"""
SELECT k.collection_id, k.title, k.handle, k.sort_order, k.is_automatic, k.published_at,
       k.source_updated_at AS updated_at,
       (SELECT count(*) FROM collection_products c JOIN products p ON p.shop_id = c.shop_id
                                                                  AND p.product_id = c.product_id
        WHERE {_HERE.format("c")} AND {_HERE.format("p")} AND c.collection_id = k.collection_id) AS products
FROM collections k WHERE {_HERE.format("k")}
  AND (CAST(:after AS text) IS NULL OR k.collection_id COLLATE "C" > :after)
  AND (CAST(:pattern AS text) IS NULL OR k.title ILIKE :pattern)
ORDER BY k.collection_id COLLATE "C" LIMIT :limit
""")  # noqa: S608 - our texts


def collections(
    session: Session, shop_id: UUID, *, q: str | None = None, after: str | None = None, limit: int = 50
) -> Sequence[Row[Any]]:  # fmt: skip
    """Collections whose title has `q` in it, with the number of their products, by id."""
    values = {"shop": shop_id, "pattern": _containing(q), "after": after, "limit": limit}
    return session.execute(_COLLECTIONS, values).all()


CODES = 50
"""How many of a discount's codes are shown with it; a batch has thousands."""
_DISCOUNTS = text(f"""
SELECT d.discount_id, d.title, d.status, d.method, d.kind, d.starts_at, d.ends_at, d.usage_limit, d.used,
       d.source_updated_at AS updated_at, n.codes AS code_count,
       ARRAY(SELECT c.code FROM discount_codes c WHERE {_HERE.format("c")} AND c.discount_id = d.discount_id
             ORDER BY c.code LIMIT :codes) AS codes
FROM discounts d
CROSS JOIN LATERAL (SELECT count(*)::int AS codes FROM discount_codes c
                    WHERE {_HERE.format("c")} AND c.discount_id = d.discount_id) AS n
WHERE {_HERE.format("d")}
  AND (CAST(:after AS text) IS NULL OR d.discount_id COLLATE "C" > :after)
  AND (CAST(:status AS text) IS NULL OR lower(d.status) = lower(:status))
  AND (CAST(:code AS text) IS NULL OR d.discount_id IN (
    SELECT c.discount_id FROM discount_codes c WHERE {_HERE.format("c")} AND lower(c.code) = lower(:code)))
ORDER BY d.discount_id COLLATE "C" LIMIT :limit
""")  # noqa: S608 - our texts


def discounts(
    session: Session,
    shop_id: UUID,
    *,
    code: str | None = None,
    status: str | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Sequence[Row[Any]]:
    """Discounts with their first CODES codes and the number of all, by id; or those with a code, in any case."""
    values = {
        "shop": shop_id, "code": code, "status": status, "after": after, "limit": limit, "codes": CODES,
    }  # fmt: skip
    return session.execute(_DISCOUNTS, values).all()


_COUNTED = ("products", "variants", "collections", "discounts", "discount_codes", "inventory_levels")
_EACH = [f"(SELECT count(*) FROM {table} t WHERE {_HERE.format('t')}) AS {table}" for table in _COUNTED]  # noqa: S608
_COUNTS = text(f"SELECT {', '.join(_EACH)}")


def counts(session: Session, shop_id: UUID) -> dict[str, int]:
    """How many things of each kind the shop has, as far as it told us."""
    return session.execute(_COUNTS, {"shop": shop_id}).one()._asdict()
