"""The sentences in which a receipt is explained, by language. Data only: `explain` fills them in."""

from __future__ import annotations

VERDICTS: dict[str, dict[str, str]] = {
    "act": {"en": "Acts: arm {arm} was drawn.", "zh": "执行：抽中方案 {arm}。"},
    "holdout": {
        "en": "Left alone on purpose: the customer is in the holdout, against which the effect is measured."
        " Otherwise arm {arm}.",
        "zh": "有意不触达：该顾客属于对照组，用于衡量实际效果。否则将执行方案 {arm}。",
    },
    "no_consent": {"en": "Nothing is sent: there is no consent.", "zh": "不发送：没有获得同意。"},
    "suppressed": {"en": "Nothing is sent: the address is suppressed.", "zh": "不发送：该地址已被禁止发送。"},
    "capped": {"en": "Nothing is sent: it would be too many messages.", "zh": "不发送：触达次数将超过上限。"},
    "over_budget": {"en": "Nothing is done: the budget does not reach.", "zh": "不执行：预算不足。"},
    "already_enrolled": {
        "en": "Nothing is done: the customer has been through this rule.",
        "zh": "不执行：该顾客已进入过此规则。",
    },
    "no_address": {"en": "Nothing is sent: there is no address.", "zh": "不发送：没有可用地址。"},
    "nothing": {"en": "Nothing is done.", "zh": "不采取任何动作。"},
}

HEADER = {
    "en": "Strategy {strategy}, rule {rule} (version {version}), because of {trigger} at {at}.",
    "zh": "策略 {strategy}，规则 {rule}（版本 {version}），触发：{trigger}，时间 {at}。",
}
SEEN_TITLE = {"en": "What was seen:", "zh": "当时所见："}
SEEN = {
    "en": "  [{mark}] {field} was {seen}; asked: {op} {value}",
    "zh": "  [{mark}] {field} 为 {seen}；条件：{op} {value}",
}
MARKS = {
    True: {"en": "yes", "zh": "是"},
    False: {"en": "no", "zh": "否"},
    None: {"en": "unknown", "zh": "未知"},
}
MISSING = {"en": "missing", "zh": "缺失"}

OPERATORS: dict[str, dict[str, str]] = {
    "equals": {"en": "is", "zh": "等于"},
    "not_equals": {"en": "is not", "zh": "不等于"},
    "in": {"en": "is one of", "zh": "属于"},
    "not_in": {"en": "is none of", "zh": "不属于"},
    "lt": {"en": "below", "zh": "小于"},
    "lte": {"en": "at most", "zh": "不超过"},
    "gt": {"en": "above", "zh": "大于"},
    "gte": {"en": "at least", "zh": "不少于"},
    "between": {"en": "between", "zh": "介于"},
    "contains": {"en": "contains", "zh": "包含"},
    "changed": {"en": "changed", "zh": "发生变化"},
    "exists": {"en": "is known", "zh": "有值"},
    "not_exists": {"en": "is not known", "zh": "无值"},
    "within": {"en": "within the last", "zh": "在最近"},
}

PASSED = {"en": "Checks passed: {names}.", "zh": "已通过的检查：{names}。"}
SEPARATOR = {"en": ", ", "zh": "、"}

GUARDRAILS: dict[str, dict[str, str]] = {
    "one_rule": {"en": "one rule per trigger", "zh": "同一触发只走一条规则"},
    "enrolment": {"en": "not entered before", "zh": "未重复进入"},
    "address": {"en": "address", "zh": "地址"},
    "suppression": {"en": "suppression", "zh": "禁发名单"},
    "consent": {"en": "consent", "zh": "同意状态"},
    "cap": {"en": "frequency", "zh": "频次上限"},
    "budget": {"en": "budget", "zh": "预算"},
}

STOPPED: dict[str, dict[str, str]] = {
    "one_rule": {
        "en": "Stopped by {name}: rule {taken_by} took this trigger.",
        "zh": "未通过「{name}」：规则 {taken_by} 已处理此次触发。",
    },
    "enrolment": {
        "en": "Stopped by {name}: entered at {entered_at}.",
        "zh": "未通过「{name}」：已于 {entered_at} 进入。",
    },
    "address": {"en": "Stopped by {name}: none for {channel}.", "zh": "未通过「{name}」：没有 {channel} 地址。"},
    "suppression": {
        "en": "Stopped by {name}: the {channel} address is suppressed ({reason}).",
        "zh": "未通过「{name}」：{channel} 地址被禁发（{reason}）。",
    },
    "consent": {
        "en": "Stopped by {name}: {channel}, {topic}: {state}.",
        "zh": "未通过「{name}」：{channel} 的 {topic} 主题为 {state}。",
    },
    "cap": {
        "en": "Stopped by {name}: at most {count} on {channel} in {window_days} days, {planned} there already.",
        "zh": "未通过「{name}」：{channel} 在 {window_days} 天内最多 {count} 次，已有 {planned} 次。",
    },
    "budget": {
        "en": "Stopped by {name}: {needed_minor} may be needed and {available_minor} is left (minor units).",
        "zh": "未通过「{name}」：可能需要 {needed_minor}，剩余 {available_minor}（最小货币单位）。",
    },
}

ARMS = {"en": "Could have been: {arms}.", "zh": "可选方案：{arms}。"}
ARM = {
    "en": "{key} ({share:.0%}, worth {score} expected)",
    "zh": "{key}（{share:.0%}，预期价值 {score}）",
}
SIDE_KEPT = {
    "en": "The side was assigned before and stays: {side}.",
    "zh": "分组此前已确定并保持：{side}。",
}
SIDE_DRAWN = {
    "en": "The draw for the holdout: shop {first:.4f} against {first_share:.0%}, strategy {second:.4f} against"
    " {second_share:.0%}: {side}.",
    "zh": "对照组抽签：全店 {first:.4f}（占 {first_share:.0%}），策略 {second:.4f}（占 {second_share:.0%}）：{side}。",
}
SIDES = {True: {"en": "held out", "zh": "对照组"}, False: {"en": "treated", "zh": "实验组"}}
PROPENSITY = {
    "en": "Probability of what happened: {propensity:.1%}.",
    "zh": "该结果发生的概率：{propensity:.1%}。",
}
OTHERS = {"en": "Other rules that matched: {names}.", "zh": "同时匹配的其他规则：{names}。"}
CLUSTER_FIELDS = {
    "cluster.label": {"en": "Cluster", "zh": "分群"},
    "cluster.lineage": {"en": "Cluster lineage", "zh": "分群谱系"},
}
UNKNOWN_STATE = {"en": "never said", "zh": "未表态"}
