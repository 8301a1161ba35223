"""What every feature means: its name in both languages, its unit, and the rule it is computed by.

The thresholds of the three labels are the constants at the top; `features_sql` puts them into its text, and the
descriptions here are made from the same constants. They are operating conventions of ours, meant to be read and
argued with: nothing is learned here (clustering does that).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RESEARCH_REPEAT_VIEWS = 3
RESEARCH_PRODUCTS = 5
LAPSED_DAYS = 180
SENSITIVE_ORDERS = 2
HIGH_DISCOUNT_SHARE, HIGH_DISCOUNTED_ORDERS = 0.10, 0.5
MEDIUM_DISCOUNT_SHARE, MEDIUM_DISCOUNTED_ORDERS = 0.02, 0.2
HIGH_CLICKS, HIGH_VIEWS = 2, 10
MEDIUM_CLICKS, MEDIUM_OPENS, MEDIUM_VIEWS = 1, 2, 3

LABELS: dict[str, tuple[str, ...]] = {
    "purchase_stage": ("new", "browsing", "research", "decision", "customer", "repeat", "lapsed"),
    "price_sensitivity": ("low", "medium", "high"),
    "engagement_level": ("none", "low", "medium", "high"),
}
"""The values of each label; the SQL answers with an index into these, or -1 for missing."""

LABEL_NAMES: dict[str, dict[str, dict[str, str]]] = {
    "purchase_stage": {
        "new": {"zh": "新访客", "en": "New"},
        "browsing": {"zh": "浏览阶段", "en": "Browsing"},
        "research": {"zh": "深度研究", "en": "Deep research"},
        "decision": {"zh": "决策阶段", "en": "Decision"},
        "customer": {"zh": "首购客户", "en": "Bought once"},
        "repeat": {"zh": "复购客户", "en": "Repeat customer"},
        "lapsed": {"zh": "沉睡客户", "en": "Lapsed"},
    },
    "price_sensitivity": {
        "low": {"zh": "价格不敏感", "en": "Low"},
        "medium": {"zh": "中等敏感", "en": "Medium"},
        "high": {"zh": "价格敏感", "en": "High"},
    },
    "engagement_level": {
        "none": {"zh": "无互动", "en": "None"},
        "low": {"zh": "低互动", "en": "Low"},
        "medium": {"zh": "中互动", "en": "Medium"},
        "high": {"zh": "高互动", "en": "High"},
    },
}

SqlType = Literal["int2", "int4", "int8", "float8", "bool"]


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of `customer_features`. `labels` are its names; `unit` and `rule` say what its values are."""

    kind: Literal["number", "flag", "label"]
    labels: dict[str, str]
    unit: str
    rule: str
    sql_type: SqlType = "int4"
    nullable: bool = False


def _count(zh: str, en: str, rule: str, unit: str = "count") -> Feature:
    return Feature("number", {"zh": zh, "en": en}, unit, rule)


def _measure(zh: str, en: str, unit: str, rule: str) -> Feature:
    return Feature("number", {"zh": zh, "en": en}, unit, rule, "float8", nullable=True)


def _label(zh: str, en: str, rule: str, *, nullable: bool = False) -> Feature:
    return Feature("label", {"zh": zh, "en": en}, "label", rule, "int2", nullable=nullable)


FEATURES: dict[str, Feature] = {
    "orders": _count("订单数", "Orders", "orders paid, without those cancelled by then"),
    "revenue_minor": Feature(
        "number",
        {"zh": "消费金额", "en": "Revenue"},
        "minor units",
        "paid for those orders after discounts, less what was refunded by then",
        "int8",
    ),
    "average_order_minor": _measure("客单价", "Average order", "minor units", "paid per order, before refunds"),
    "days_since_order": _measure("距上次下单天数", "Days since last order", "days", "since the last order"),
    "days_since_first_order": _measure("距首次下单天数", "Days since first order", "days", "since the first order"),
    "interpurchase_days": _measure(
        "平均购买间隔", "Days between orders", "days", "(last order - first order) / (orders - 1); from 2 orders on"
    ),
    "discount_share": _measure(
        "折扣占比", "Discount share", "share", "discounts / (paid + discounts) over those orders, by money"
    ),
    "return_share": _measure(
        "退款占比", "Return share", "share", "refunded by then / paid over those orders, by money"
    ),
    "quantity": _count("购买件数", "Pieces bought", "pieces in those orders", "pieces"),
    "views_7d": _count("7天浏览次数", "Views, 7 days", "product views in the last 7 days"),
    "views_30d": _count("30天浏览次数", "Views, 30 days", "product views in the last 30 days"),
    "products_viewed_7d": _count("7天浏览商品数", "Products viewed, 7 days", "different products viewed in 7 days"),
    "repeat_views_7d": _count(
        "7天单品最多浏览次数", "Repeat views, 7 days", "views of the product viewed most in the last 7 days"
    ),
    "searches_7d": _count("7天搜索次数", "Searches, 7 days", "searches in the last 7 days"),
    "carts_7d": _count("7天加购次数", "Cart additions, 7 days", "additions to the cart in the last 7 days"),
    "checkouts_7d": _count("7天结账次数", "Checkouts, 7 days", "checkouts started in the last 7 days"),
    "days_since_view": _measure("距上次浏览天数", "Days since last view", "days", "since the last product view"),
    "days_since_cart": _measure(
        "距上次加购天数", "Days since last cart", "days", "since the last addition to the cart"
    ),
    "days_since_search": _measure("距上次搜索天数", "Days since last search", "days", "since the last search"),
    "open_cart": Feature(
        "flag",
        {"zh": "有未结购物车", "en": "Open cart"},
        "flag",
        "something was put into the cart in the last 7 days, and no order came after",
        "bool",
    ),
    "messages_30d": _count("30天收到消息数", "Messages, 30 days", "messages sent in the last 30 days, coupons apart"),
    "opens_30d": _count("30天打开次数", "Opens, 30 days", "e-mail opens in the last 30 days"),
    "clicks_30d": _count("30天点击次数", "Clicks, 30 days", "e-mail clicks in the last 30 days"),
    "purchase_stage": _label(
        "购买阶段",
        "Purchase stage",
        "the first that holds: decision (open cart, or a checkout in 7 days with no order after); research"
        f" (one product viewed {RESEARCH_REPEAT_VIEWS} times, or {RESEARCH_PRODUCTS} products, in 7 days); browsing"
        f" (a view in 30 days with no order after); lapsed (no order for {LAPSED_DAYS} days); repeat (2 orders or"
        " more); customer (1 order); new",
    ),
    "price_sensitivity": _label(
        "价格敏感度",
        "Price sensitivity",
        f"from {SENSITIVE_ORDERS} orders on: high when discounts are {HIGH_DISCOUNT_SHARE:.0%} of the value or"
        f" {HIGH_DISCOUNTED_ORDERS:.0%} of the orders had one; medium from {MEDIUM_DISCOUNT_SHARE:.0%} or"
        f" {MEDIUM_DISCOUNTED_ORDERS:.0%}; else low. Unknown before",
        nullable=True,
    ),
    "engagement_level": _label(
        "活跃度",
        "Engagement",
        f"in 30 days: high with {HIGH_CLICKS} clicks or {HIGH_VIEWS} views; medium with {MEDIUM_CLICKS} click,"
        f" {MEDIUM_OPENS} opens or {MEDIUM_VIEWS} views; low with any view or open, or a search or cart in 7 days;"
        " else none",
    ),
}
"""Column of `customer_features` -> what it means, in the table's order."""
