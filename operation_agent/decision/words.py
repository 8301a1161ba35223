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
    "excluded": {
        "en": "Nothing is done: the customer is in another strategy of the same group.",
        "zh": "不执行：该顾客正处于同组的另一策略中。",
    },
    "cooling_down": {
        "en": "Nothing is sent: the customer complained not long ago.",
        "zh": "不发送：该顾客不久前投诉过。",
    },
    "quiet": {"en": "Nothing is sent: it would fall into quiet hours.", "zh": "不发送：正值免打扰时段。"},
    "coupon_limit": {"en": "Nothing is done: it would be one coupon too many.", "zh": "不执行：优惠券数量将超过限制。"},
    "daily_limit": {"en": "Nothing is done: the day's limit is used up.", "zh": "不执行：当日执行次数已用完。"},
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
    "exclusive": {"en": "one strategy of the group at a time", "zh": "同组策略互斥"},
    "complaint": {"en": "no complaint lately", "zh": "近期无投诉"},
    "quiet_hours": {"en": "quiet hours", "zh": "免打扰时段"},
    "coupon": {"en": "coupons", "zh": "优惠券限制"},
    "executions": {"en": "executions a day", "zh": "每日执行上限"},
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
        "en": "Stopped by {name}: at most {count} {what} in {window_days} days, {planned} there already.",
        "zh": "未通过「{name}」：{what}在 {window_days} 天内最多 {count} 次，已有 {planned} 次。",
    },
    "exclusive": {
        "en": "Stopped by {name}: of the group {group}, the customer is in {taken_by} until {until}.",
        "zh": "未通过「{name}」：在互斥组 {group} 中，该顾客属于 {taken_by}，直至 {until}。",
    },
    "exclusive.open": {
        "en": "Stopped by {name}: of the group {group}, the customer is in {taken_by}, with a step still to come.",
        "zh": "未通过「{name}」：在互斥组 {group} 中，该顾客属于 {taken_by}，仍有未完成的步骤。",
    },
    "complaint": {
        "en": "Stopped by {name}: complained at {complained_at}; nothing for {cooldown_days} days.",
        "zh": "未通过「{name}」：于 {complained_at} 投诉；{cooldown_days} 天内不再打扰。",
    },
    "quiet_hours": {
        "en": "Stopped by {name}: due at {due_at}, quiet from {start} to {end} ({zone}).",
        "zh": "未通过「{name}」：应于 {due_at} 发送，{start} 至 {end} 免打扰（{zone}）。",
    },
    "coupon": {
        "en": "Stopped by {name}: at most {count} in {window_days} days, {planned} there already.",
        "zh": "未通过「{name}」：{window_days} 天内最多 {count} 张，已有 {planned} 张。",
    },
    "coupon.outstanding": {
        "en": "Stopped by {name}: one is still out, until {outstanding_until}.",
        "zh": "未通过「{name}」：仍有一张未使用，有效至 {outstanding_until}。",
    },
    "executions": {
        "en": "Stopped by {name}: at most {most} a day; {taken} on {day} already.",
        "zh": "未通过「{name}」：每日最多 {most} 次；{day} 已执行 {taken} 次。",
    },
    "executions.cutoff": {
        "en": "Stopped by {name}: worth {score}; others, worth {cutoff} or more, take up the day.",
        "zh": "未通过「{name}」：预期价值 {score}；当日名额留给价值不低于 {cutoff} 的顾客。",
    },
    "budget": {
        "en": "Stopped by {name}: {needed_minor} may be needed and {available_minor} is left{limit} (minor units).",
        "zh": "未通过「{name}」：可能需要 {needed_minor}，剩余{limit} {available_minor}（最小货币单位）。",
    },
    "budget.cutoff": {
        "en": "Stopped by {name}: worth {score}; others, worth {cutoff} or more, take up the money.",
        "zh": "未通过「{name}」：预期价值 {score}；预算留给价值不低于 {cutoff} 的顾客。",
    },
}
"""By guardrail; a second one after a dot, where it may stop for another reason."""

BUDGET_LIMITS = {
    "total": {"en": "", "zh": ""},
    "daily": {"en": " for the day", "zh": "（当日）"},
    "per_customer": {"en": " for this customer", "zh": "（该顾客）"},
}
CAP_ON = {"en": "on {channel}", "zh": "{channel} "}
CAP_TAGGED = {"en": "tagged {tag}", "zh": "带标签 {tag} 的消息"}
CAP_ALL = {"en": "messages", "zh": "消息"}
CAP_OWN = {"en": " of this strategy", "zh": "（本策略）"}

ALTERNATIVE_STOPPED = {
    "en": "Rule {rule} (worth {score}) would have come first, but: {verdict}",
    "zh": "规则 {rule}（预期价值 {score}）本应优先，但：{verdict}",
}
ALTERNATIVE_LATER = {
    "en": "Rule {rule} of the same strategy matched as well; it comes after (priority {priority}, worth {score}).",
    "zh": "同一策略的规则 {rule} 也匹配，但排在其后（优先级 {priority}，预期价值 {score}）。",
}
ALTERNATIVE_TOO = {
    "en": "Rule {rule} (worth {score}) matched as well: {verdict}",
    "zh": "规则 {rule}（预期价值 {score}）也匹配：{verdict}",
}
MAY_SKIP = {
    "en": "Of arm {arm}, later messages may be held back by caps when they are due: {numbers}.",
    "zh": "方案 {arm} 的后续消息到期时可能因频次上限被跳过：{numbers}。",
}
APPROVAL = {
    "en": "Before anything goes out, {approvers} must say yes: {why}.",
    "zh": "执行前需 {approvers} 人批准：{why}。",
}
APPROVAL_WHY = {
    "types": {"en": "action {found}", "zh": "动作 {found}"},
    "percent_above": {"en": "{found:g} % off, more than {limit:g} %", "zh": "折扣 {found:g}%，高于 {limit:g}%"},
    "cost_above": {
        "en": "may cost {found}, more than {limit} (minor units)",
        "zh": "可能花费 {found}，高于 {limit}（最小货币单位）",
    },
}
ESTIMATOR = {
    "en": "Worth {score} by {estimator}.",
    "zh": "预期价值 {score}，由 {estimator} 估计。",
}
ESTIMATORS = {
    "prior": {"en": "the template's prior", "zh": "模板先验"},
    "logistic_t": {"en": "the model fitted to this shop", "zh": "本店拟合的模型"},
}
ACTION = {
    "en": "Action {number}: {type}, {state}{reason}, due at {due_at}.",
    "zh": "动作 {number}：{type}，{state}{reason}，应于 {due_at} 执行。",
}
HISTORY = {
    "count": {"en": "number of {event}", "zh": "{event} 次数"},
    "sum": {"en": "sum of {of} over {event}", "zh": "{event} 的 {of} 合计"},
    "distinct": {"en": "different {of} in {event}", "zh": "{event} 中不同的 {of} 数"},
    "days_since_last": {"en": "days since the last {event}", "zh": "距上次 {event} 天数"},
    "days_since_first": {"en": "days since the first {event}", "zh": "距首次 {event} 天数"},
}
HISTORY_WITHIN = {"en": "{asked} within {within}", "zh": "{within} 内{asked}"}
HELD = {"en": ", for {span} (there since {since})", "zh": "，持续 {span}（始于 {since}）"}
CHANGED = {"en": " (before: {before})", "zh": "（此前：{before}）"}

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
