"""The tables behind cluster labels: the rules, read from the top, and the words for features in both languages.

Data only. Thresholds are on the group's own figures, on where it stands among everybody, or on the ratio of the two,
so that they mean the same in a shop of ten-dollar orders and in one of thousand-yuan orders.
"""

from __future__ import annotations

from dataclasses import dataclass

Text = dict[str, str]


@dataclass(frozen=True, slots=True)
class Condition:
    """`statistic` of `feature` (see labels.Profile) at least, or at most, `bound`.

    `times_everybody`: the bound is in multiples of everybody's figure. `times_feature`: in multiples of the group's own
    figure for that other feature.
    """

    statistic: str
    feature: str
    bound: float
    at_least: bool = True
    times_everybody: bool = False
    times_feature: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """Holds when in every element of `conditions` at least one condition is true. `reason` takes {share}, {facts}."""

    key: str
    text: Text
    reason: Text
    conditions: tuple[tuple[Condition, ...], ...]


@dataclass(frozen=True, slots=True)
class FeatureWords:
    """`kind`: count, days, money, share or flag. `high` and `low` tell two groups of the same name apart."""

    name: Text
    kind: str
    high: Text
    low: Text


def _all(*choices: Condition | tuple[Condition, ...]) -> tuple[tuple[Condition, ...], ...]:
    return tuple(choice if isinstance(choice, tuple) else (choice,) for choice in choices)


RULES: tuple[Rule, ...] = (
    Rule(
        "decision_stage",
        {"en": "Decision stage", "zh": "决策阶段"},
        {"en": "Close to buying ({share} of customers): {facts}.", "zh": "临近下单（占客户 {share}）：{facts}。"},
        _all(
            (
                Condition("active", "checkouts_7d", 0.25),
                Condition("active", "carts_7d", 0.4),
                Condition("active", "open_cart", 0.5),
            )
        ),
    ),
    Rule(
        "deep_research",
        {"en": "Deep research", "zh": "深度研究"},
        {
            "en": "Comparing closely before choosing ({share} of customers): {facts}.",
            "zh": "反复比较、尚未选定（占客户 {share}）：{facts}。",
        },
        _all(
            (Condition("mean", "repeat_views_7d", 2), Condition("active", "searches_7d", 0.5)),
            Condition("mean", "views_7d", 1.5, times_everybody=True),
        ),
    ),
    Rule(
        "new",
        {"en": "New customers", "zh": "新客"},
        {
            "en": "Bought for the first time lately ({share} of customers): {facts}.",
            "zh": "近期首购（占客户 {share}）：{facts}。",
        },
        _all(
            Condition("median", "days_since_first_order", 30, at_least=False),
            Condition("median", "orders", 1, at_least=False),
        ),
    ),
    Rule(
        "at_risk",
        {"en": "At risk of churn", "zh": "流失风险"},
        {
            "en": "Used to come back, now overdue by their own rhythm ({share} of customers): {facts}.",
            "zh": "曾经复购，按自身节奏已逾期未购（占客户 {share}）：{facts}。",
        },
        _all(
            Condition("median", "orders", 2),
            Condition("median", "days_since_order", 2, times_feature="interpurchase_days"),
            Condition("median", "days_since_order", 30),
        ),
    ),
    Rule(
        "high_value",
        {"en": "High value", "zh": "高价值"},
        {
            "en": "Among the highest spenders ({share} of customers): {facts}.",
            "zh": "消费居前（占客户 {share}）：{facts}。",
        },
        _all(
            Condition("position", "revenue_minor", 0.8),
            Condition("median", "revenue_minor", 1.5, times_everybody=True),
        ),
    ),
    Rule(
        "price_sensitive",
        {"en": "Discount seekers", "zh": "价格敏感"},
        {
            "en": "Buy mostly when there is a discount ({share} of customers): {facts}.",
            "zh": "多在打折时购买（占客户 {share}）：{facts}。",
        },
        _all(Condition("mean", "discount_share", 0.15), Condition("mean", "discount_share", 1.5, times_everybody=True)),
    ),
    Rule(
        "loyal",
        {"en": "Loyal repeat buyers", "zh": "忠诚复购"},
        {"en": "Keep coming back ({share} of customers): {facts}.", "zh": "持续复购（占客户 {share}）：{facts}。"},
        _all(Condition("median", "orders", 3)),
    ),
    Rule(
        "browsing_stage",
        {"en": "Browsing stage", "zh": "浏览阶段"},
        {
            "en": "Looking around, little in the cart yet ({share} of customers): {facts}.",
            "zh": "正在浏览、较少加购（占客户 {share}）：{facts}。",
        },
        _all(Condition("active", "views_30d", 0.5), Condition("mean", "views_30d", 1, times_everybody=True)),
    ),
    Rule(
        "one_time",
        {"en": "One-time buyers", "zh": "一次性买家"},
        {
            "en": "Bought once and not again ({share} of customers): {facts}.",
            "zh": "仅购买一次（占客户 {share}）：{facts}。",
        },
        _all(Condition("median", "orders", 1), Condition("median", "orders", 1, at_least=False)),
    ),
    Rule(
        "mid_value",
        {"en": "Mid-price value", "zh": "中端价值型"},
        {
            "en": "Orders of a middling size ({share} of customers): {facts}.",
            "zh": "客单价居中（占客户 {share}）：{facts}。",
        },
        _all(
            Condition("median", "orders", 1),
            Condition("position", "average_order_minor", 0.35),
            Condition("position", "average_order_minor", 0.8, at_least=False),
        ),
    ),
    Rule(
        "low_value",
        {"en": "Low spend", "zh": "低消费"},
        {
            "en": "Spend less than most ({share} of customers): {facts}.",
            "zh": "消费低于多数客户（占客户 {share}）：{facts}。",
        },
        _all(Condition("median", "orders", 1), Condition("position", "revenue_minor", 0.4, at_least=False)),
    ),
    Rule(
        "visitor",
        {"en": "Visitors who have not bought", "zh": "未购访客"},
        {
            "en": "Known but without an order ({share} of customers): {facts}.",
            "zh": "已识别但尚未下单（占客户 {share}）：{facts}。",
        },
        _all(Condition("median", "orders", 0, at_least=False)),
    ),
)

FALLBACK = Rule(
    "typical",
    {"en": "Typical customers", "zh": "普通客户"},
    {
        "en": "No rule singles this group out ({share} of customers).",
        "zh": "没有规则能突出这一群体（占客户 {share}）。",
    },
    (),
)

STATISTIC_WORDS: dict[str, Text] = {
    "median": {
        "en": "median {feature} {value} (everybody {everybody})",
        "zh": "{feature}中位数 {value}（全体 {everybody}）",
    },
    "mean": {"en": "mean {feature} {value} (everybody {everybody})", "zh": "{feature}均值 {value}（全体 {everybody}）"},
    "active": {"en": "{value} have {feature} (everybody {everybody})", "zh": "{value} 有{feature}（全体 {everybody}）"},
    "position": {
        "en": "median {feature} {median}, above {value} of customers",
        "zh": "{feature}中位数 {median}，高于 {value} 的客户",
    },
}

TIMES_WORDS: Text = {"en": ", {times} times their {other}", "zh": "，为其{other}的 {times} 倍"}

FEATURE_WORDS: dict[str, FeatureWords] = {
    "revenue_minor": FeatureWords(
        {"en": "spend", "zh": "累计消费"},
        "money",
        {"en": "higher spend", "zh": "消费较高"},
        {"en": "lower spend", "zh": "消费较低"},
    ),
    "average_order_minor": FeatureWords(
        {"en": "order size", "zh": "客单价"},
        "money",
        {"en": "larger orders", "zh": "客单价较高"},
        {"en": "smaller orders", "zh": "客单价较低"},
    ),
    "orders": FeatureWords(
        {"en": "orders", "zh": "订单数"},
        "count",
        {"en": "more orders", "zh": "订单较多"},
        {"en": "fewer orders", "zh": "订单较少"},
    ),
    "days_since_order": FeatureWords(
        {"en": "days since the last order", "zh": "距上次下单天数"},
        "days",
        {"en": "longer ago", "zh": "下单较早"},
        {"en": "more recent", "zh": "下单较近"},
    ),
    "days_since_first_order": FeatureWords(
        {"en": "days since the first order", "zh": "距首单天数"},
        "days",
        {"en": "known longer", "zh": "首单较早"},
        {"en": "known for less time", "zh": "首单较近"},
    ),
    "interpurchase_days": FeatureWords(
        {"en": "days between orders", "zh": "购买间隔天数"},
        "days",
        {"en": "slower rhythm", "zh": "购买间隔较长"},
        {"en": "quicker rhythm", "zh": "购买间隔较短"},
    ),
    "discount_share": FeatureWords(
        {"en": "discount share", "zh": "折扣占比"},
        "share",
        {"en": "more discounts", "zh": "折扣较多"},
        {"en": "fewer discounts", "zh": "折扣较少"},
    ),
    "views_7d": FeatureWords(
        {"en": "product views in 7 days", "zh": "7 日商品浏览"},
        "count",
        {"en": "more views this week", "zh": "近 7 日浏览较多"},
        {"en": "fewer views this week", "zh": "近 7 日浏览较少"},
    ),
    "views_30d": FeatureWords(
        {"en": "product views in 30 days", "zh": "30 日商品浏览"},
        "count",
        {"en": "more views this month", "zh": "近 30 日浏览较多"},
        {"en": "fewer views this month", "zh": "近 30 日浏览较少"},
    ),
    "repeat_views_7d": FeatureWords(
        {"en": "views of one product in 7 days", "zh": "7 日单品浏览"},
        "count",
        {"en": "more repeated views", "zh": "重复浏览较多"},
        {"en": "fewer repeated views", "zh": "重复浏览较少"},
    ),
    "searches_7d": FeatureWords(
        {"en": "searches in 7 days", "zh": "7 日搜索"},
        "count",
        {"en": "more searches", "zh": "搜索较多"},
        {"en": "fewer searches", "zh": "搜索较少"},
    ),
    "carts_7d": FeatureWords(
        {"en": "additions to the cart in 7 days", "zh": "7 日加购"},
        "count",
        {"en": "more in the cart", "zh": "加购较多"},
        {"en": "less in the cart", "zh": "加购较少"},
    ),
    "checkouts_7d": FeatureWords(
        {"en": "checkouts in 7 days", "zh": "7 日结账"},
        "count",
        {"en": "more checkouts", "zh": "结账较多"},
        {"en": "fewer checkouts", "zh": "结账较少"},
    ),
    "open_cart": FeatureWords(
        {"en": "an open cart", "zh": "未结账购物车"},
        "flag",
        {"en": "more open carts", "zh": "未结账较多"},
        {"en": "fewer open carts", "zh": "未结账较少"},
    ),
    "days_since_view": FeatureWords(
        {"en": "days since the last view", "zh": "距上次浏览天数"},
        "days",
        {"en": "away longer", "zh": "浏览较早"},
        {"en": "seen lately", "zh": "近期来访"},
    ),
}
