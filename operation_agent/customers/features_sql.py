"""The one SQL text of the features. `BODY` computes; a head before it says where its rows come from: `BATCH` for pairs
of customer and moment, `EVERYONE` and `RANGE` for all customers, or those with low < id <= high, at one moment.

All heads define the same relations, keyed by `k`: `target` (who is asked about), and the rows that had happened by
then: `order_rows` (not cancelled), `refund_rows`, `timeline_rows`, `message_rows`. `week` and `month` are the starts
of the last 7 and 30 days. Money is summed as float8: exact for integers up to 2^53, and much faster than numeric.
Parameters are psycopg's, since the text runs inside COPY.

`OFFSET 0` in BATCH keeps each look-up a look-up: of a shop it has no statistics on yet the planner believes that it has
one order, and would go through all of them once per target.
"""

from __future__ import annotations

from . import definitions as d

BATCH = """
WITH asked AS MATERIALIZED (
  SELECT a.n::int4 AS n, a.customer_id, a.as_of, a.as_of - interval '168 hours' AS week,
         a.as_of - interval '720 hours' AS month
  FROM unnest(%(customers)s::uuid[], %(times)s::timestamptz[]) WITH ORDINALITY AS a (customer_id, as_of, n)
), target AS (
  SELECT a.n AS k, a.n, a.customer_id, COALESCE(c.random_key, '00000000-0000-0000-0000-000000000000') AS random_key,
         a.as_of
  FROM asked a LEFT JOIN customers c ON c.shop_id = %(shop)s AND c.id = a.customer_id
), order_rows AS (
  SELECT a.n AS k, o.* FROM asked a CROSS JOIN LATERAL (
    SELECT o.ordered_at, o.total_minor, o.discount_minor, o.quantity FROM orders o
    WHERE o.shop_id = %(shop)s AND o.customer_id = a.customer_id AND o.ordered_at <= a.as_of
      AND (o.cancelled_at IS NULL OR o.cancelled_at > a.as_of) OFFSET 0) AS o
), refund_rows AS (
  SELECT a.n AS k, x.amount_minor FROM asked a CROSS JOIN LATERAL (
    SELECT o.source_order_id FROM orders o
    WHERE o.shop_id = %(shop)s AND o.customer_id = a.customer_id AND o.ordered_at <= a.as_of AND o.refunded_minor > 0
      AND (o.cancelled_at IS NULL OR o.cancelled_at > a.as_of) OFFSET 0) AS o
  CROSS JOIN LATERAL (
    SELECT x.amount_minor FROM order_changes x
    WHERE x.shop_id = %(shop)s AND x.source_order_id = o.source_order_id AND x.kind = 'refunded'
      AND x.occurred_at <= a.as_of OFFSET 0) AS x
), timeline_rows AS NOT MATERIALIZED (
  SELECT a.n AS k, t.*, a.week, a.month FROM asked a CROSS JOIN LATERAL (
    SELECT t.type, t.occurred_at, t.product_id FROM timeline t
    WHERE t.shop_id = %(shop)s AND t.customer_id = a.customer_id AND t.occurred_at <= a.as_of OFFSET 0) AS t
), message_rows AS (
  SELECT a.n AS k FROM asked a CROSS JOIN LATERAL (
    SELECT m.id FROM actions m
    WHERE m.shop_id = %(shop)s AND m.customer_id = a.customer_id AND m.sent_at <= a.as_of AND m.sent_at > a.month
      AND m.state = 'sent' AND NOT m.held_out AND m.channel <> 'coupon' OFFSET 0) AS m
)"""

EVERYONE = """
WITH target AS NOT MATERIALIZED (
  SELECT c.id AS k, 0 AS n, c.id AS customer_id, c.random_key, %(at)s::timestamptz AS as_of
  FROM customers c
  WHERE c.shop_id = %(shop)s AND c.merged_into IS NULL AND c.first_seen_at <= %(at)s::timestamptz
), order_rows AS (
  SELECT o.customer_id AS k, o.ordered_at, o.total_minor, o.discount_minor, o.quantity
  FROM orders o WHERE o.shop_id = %(shop)s AND o.customer_id IS NOT NULL AND o.ordered_at <= %(at)s::timestamptz
                  AND (o.cancelled_at IS NULL OR o.cancelled_at > %(at)s::timestamptz)
), refund_rows AS (
  SELECT o.customer_id AS k, x.amount_minor
  FROM order_changes x JOIN orders o ON o.shop_id = %(shop)s AND o.source_order_id = x.source_order_id
  WHERE x.shop_id = %(shop)s AND x.kind = 'refunded' AND x.occurred_at <= %(at)s::timestamptz
    AND o.refunded_minor > 0 AND o.ordered_at <= %(at)s::timestamptz
    AND (o.cancelled_at IS NULL OR o.cancelled_at > %(at)s::timestamptz)
), timeline_rows AS NOT MATERIALIZED (
  SELECT t.customer_id AS k, t.type, t.occurred_at, t.product_id,
         %(week)s::timestamptz AS week, %(month)s::timestamptz AS month
  FROM timeline t WHERE t.shop_id = %(shop)s AND t.occurred_at <= %(at)s::timestamptz
), message_rows AS (
  SELECT m.customer_id AS k
  FROM actions m WHERE m.shop_id = %(shop)s AND m.sent_at <= %(at)s::timestamptz AND m.sent_at > %(month)s::timestamptz
                   AND m.state = 'sent' AND NOT m.held_out AND m.channel <> 'coupon'
)"""

_BETWEEN = "{0} > %(low)s AND {0} <= %(high)s"
# A range's refunds are looked up: joined, those of the whole shop would be sorted for every range.
RANGE = f"""
WITH target AS NOT MATERIALIZED (
  SELECT c.id AS k, 0 AS n, c.id AS customer_id, c.random_key, %(at)s::timestamptz AS as_of
  FROM customers c
  WHERE c.shop_id = %(shop)s AND {_BETWEEN.format("c.id")} AND c.merged_into IS NULL
    AND c.first_seen_at <= %(at)s::timestamptz
), order_rows AS (
  SELECT o.customer_id AS k, o.ordered_at, o.total_minor, o.discount_minor, o.quantity
  FROM orders o WHERE o.shop_id = %(shop)s AND {_BETWEEN.format("o.customer_id")}
                  AND o.ordered_at <= %(at)s::timestamptz
                  AND (o.cancelled_at IS NULL OR o.cancelled_at > %(at)s::timestamptz)
), refund_rows AS (
  SELECT o.k, x.amount_minor FROM (
    SELECT o.customer_id AS k, o.source_order_id FROM orders o
    WHERE o.shop_id = %(shop)s AND {_BETWEEN.format("o.customer_id")} AND o.refunded_minor > 0
      AND o.ordered_at <= %(at)s::timestamptz
      AND (o.cancelled_at IS NULL OR o.cancelled_at > %(at)s::timestamptz) OFFSET 0) AS o
  CROSS JOIN LATERAL (
    SELECT x.amount_minor FROM order_changes x
    WHERE x.shop_id = %(shop)s AND x.source_order_id = o.source_order_id AND x.kind = 'refunded'
      AND x.occurred_at <= %(at)s::timestamptz OFFSET 0) AS x
), timeline_rows AS NOT MATERIALIZED (
  SELECT t.customer_id AS k, t.type, t.occurred_at, t.product_id,
         %(week)s::timestamptz AS week, %(month)s::timestamptz AS month
  FROM timeline t WHERE t.shop_id = %(shop)s AND {_BETWEEN.format("t.customer_id")}
                    AND t.occurred_at <= %(at)s::timestamptz
), message_rows AS (
  SELECT m.customer_id AS k
  FROM actions m WHERE m.shop_id = %(shop)s AND {_BETWEEN.format("m.customer_id")}
                   AND m.sent_at <= %(at)s::timestamptz AND m.sent_at > %(month)s::timestamptz
                   AND m.state = 'sent' AND NOT m.held_out AND m.channel <> 'coupon'
)"""  # noqa: S608

BODY = f""", bought AS (
  SELECT k, count(*)::int4 AS orders, sum(total_minor::float8) AS paid, sum(discount_minor::float8) AS discount,
         count(*) FILTER (WHERE discount_minor > 0)::int4 AS discounted, sum(quantity)::int4 AS quantity,
         min(ordered_at) AS first_at, max(ordered_at) AS last_at
  FROM order_rows GROUP BY k
), refunded AS (
  SELECT k, sum(amount_minor::float8) AS amount FROM refund_rows GROUP BY k
), did AS (
  SELECT k,
         count(*) FILTER (WHERE type = 'product.viewed' AND occurred_at > week)::int4 AS views_7d,
         count(*) FILTER (WHERE type = 'product.viewed' AND occurred_at > month)::int4 AS views_30d,
         count(*) FILTER (WHERE type = 'product.searched' AND occurred_at > week)::int4 AS searches_7d,
         count(*) FILTER (WHERE type = 'cart.added' AND occurred_at > week)::int4 AS carts_7d,
         count(*) FILTER (WHERE type = 'checkout.started' AND occurred_at > week)::int4 AS checkouts_7d,
         count(*) FILTER (WHERE type = 'email.opened' AND occurred_at > month)::int4 AS opens_30d,
         count(*) FILTER (WHERE type = 'email.clicked' AND occurred_at > month)::int4 AS clicks_30d,
         max(occurred_at) FILTER (WHERE type = 'product.viewed') AS view_at,
         max(occurred_at) FILTER (WHERE type = 'product.searched') AS search_at,
         max(occurred_at) FILTER (WHERE type = 'cart.added') AS cart_at,
         max(occurred_at) FILTER (WHERE type = 'checkout.started') AS checkout_at
  FROM timeline_rows GROUP BY k
), looked AS (
  SELECT k, count(*)::int4 AS products_viewed_7d, max(views)::int4 AS repeat_views_7d
  FROM (SELECT k, product_id, count(*) AS views FROM timeline_rows
        WHERE type = 'product.viewed' AND occurred_at > week AND product_id IS NOT NULL GROUP BY k, product_id) AS p
  GROUP BY k
), messaged AS (
  SELECT k, count(*)::int4 AS messages_30d FROM message_rows GROUP BY k
), facts AS (
  SELECT t.n, t.customer_id, t.random_key, t.as_of,
         COALESCE(b.orders, 0) AS orders, b.paid, b.discount, b.discounted, COALESCE(b.quantity, 0) AS quantity,
         COALESCE(r.amount, 0) AS refunded, b.first_at, b.last_at,
         COALESCE(a.views_7d, 0) AS views_7d, COALESCE(a.views_30d, 0) AS views_30d,
         COALESCE(l.products_viewed_7d, 0) AS products_viewed_7d, COALESCE(l.repeat_views_7d, 0) AS repeat_views_7d,
         COALESCE(a.searches_7d, 0) AS searches_7d, COALESCE(a.carts_7d, 0) AS carts_7d,
         COALESCE(a.checkouts_7d, 0) AS checkouts_7d,
         a.view_at, a.cart_at, a.search_at,
         COALESCE(a.carts_7d > 0 AND a.cart_at > COALESCE(b.last_at, '-infinity'), false) AS open_cart,
         COALESCE(a.checkouts_7d > 0 AND a.checkout_at > COALESCE(b.last_at, '-infinity'), false) AS open_checkout,
         COALESCE(m.messages_30d, 0) AS messages_30d, COALESCE(a.opens_30d, 0) AS opens_30d,
         COALESCE(a.clicks_30d, 0) AS clicks_30d
  FROM target t LEFT JOIN bought b ON b.k = t.k LEFT JOIN refunded r ON r.k = t.k LEFT JOIN did a ON a.k = t.k
  LEFT JOIN looked l ON l.k = t.k LEFT JOIN messaged m ON m.k = t.k
)
SELECT n, customer_id, random_key, as_of,
  orders,
  COALESCE(paid - refunded, 0)::int8 AS revenue_minor,
  COALESCE(paid / orders, 'NaN') AS average_order_minor,
  COALESCE(date_part('epoch', as_of - last_at) / 86400, 'NaN') AS days_since_order,
  COALESCE(date_part('epoch', as_of - first_at) / 86400, 'NaN') AS days_since_first_order,
  CASE WHEN orders >= 2 THEN date_part('epoch', last_at - first_at) / 86400 / (orders - 1) ELSE 'NaN' END
    AS interpurchase_days,
  COALESCE(discount / NULLIF(paid + discount, 0), 'NaN') AS discount_share,
  COALESCE(refunded / NULLIF(paid, 0), 'NaN') AS return_share,
  quantity, views_7d, views_30d, products_viewed_7d, repeat_views_7d, searches_7d, carts_7d, checkouts_7d,
  COALESCE(date_part('epoch', as_of - view_at) / 86400, 'NaN') AS days_since_view,
  COALESCE(date_part('epoch', as_of - cart_at) / 86400, 'NaN') AS days_since_cart,
  COALESCE(date_part('epoch', as_of - search_at) / 86400, 'NaN') AS days_since_search,
  open_cart, messages_30d, opens_30d, clicks_30d,
  CASE WHEN open_cart OR open_checkout THEN 3
       WHEN repeat_views_7d >= {d.RESEARCH_REPEAT_VIEWS} OR products_viewed_7d >= {d.RESEARCH_PRODUCTS} THEN 2
       WHEN views_30d > 0 AND view_at > COALESCE(last_at, '-infinity') THEN 1
       WHEN orders = 0 THEN 0
       WHEN as_of - last_at > interval '{d.LAPSED_DAYS * 24} hours' THEN 6
       WHEN orders >= 2 THEN 5 ELSE 4 END::int2 AS purchase_stage,
  CASE WHEN orders < {d.SENSITIVE_ORDERS} THEN -1
       WHEN discount >= {d.HIGH_DISCOUNT_SHARE}::float8 * (paid + discount) AND discount > 0
         OR discounted >= {d.HIGH_DISCOUNTED_ORDERS}::float8 * orders THEN 2
       WHEN discount >= {d.MEDIUM_DISCOUNT_SHARE}::float8 * (paid + discount) AND discount > 0
         OR discounted >= {d.MEDIUM_DISCOUNTED_ORDERS}::float8 * orders THEN 1
       ELSE 0 END::int2 AS price_sensitivity,
  CASE WHEN clicks_30d >= {d.HIGH_CLICKS} OR views_30d >= {d.HIGH_VIEWS} THEN 3
       WHEN clicks_30d >= {d.MEDIUM_CLICKS} OR opens_30d >= {d.MEDIUM_OPENS} OR views_30d >= {d.MEDIUM_VIEWS} THEN 2
       WHEN views_30d + opens_30d + searches_7d + carts_7d > 0 THEN 1
       ELSE 0 END::int2 AS engagement_level
FROM facts"""  # noqa: S608
