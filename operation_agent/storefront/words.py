"""What the entries of a customer's timeline are called."""

from __future__ import annotations

LABELS: dict[str, dict[str, str]] = {
    "page.viewed": {"zh": "浏览页面", "en": "Viewed a page"},
    "product.viewed": {"zh": "浏览商品", "en": "Viewed a product"},
    "product.searched": {"zh": "搜索商品", "en": "Searched"},
    "cart.added": {"zh": "加入购物车", "en": "Added to cart"},
    "cart.removed": {"zh": "移出购物车", "en": "Removed from cart"},
    "checkout.started": {"zh": "开始结账", "en": "Started checkout"},
    "email.delivered": {"zh": "邮件已送达", "en": "E-mail delivered"},
    "email.opened": {"zh": "打开邮件", "en": "Opened an e-mail"},
    "email.clicked": {"zh": "点击邮件", "en": "Clicked in an e-mail"},
    "email.bounced": {"zh": "邮件退回", "en": "E-mail bounced"},
    "email.dropped": {"zh": "邮件未发出", "en": "E-mail dropped"},
    "email.complained": {"zh": "投诉垃圾邮件", "en": "Complained of spam"},
    "email.unsubscribed": {"zh": "邮件退订", "en": "Unsubscribed by e-mail"},
    "consent.changed": {"zh": "订阅状态变更", "en": "Changed consent"},
    "customer.deleted": {"zh": "店铺删除客户", "en": "Deleted by the shop"},
    "order.fulfilled": {"zh": "订单全部发货", "en": "Order fulfilled"},
    "custom": {"zh": "自定义事件", "en": "Custom event"},
    "cart": {"zh": "购物车", "en": "Cart"},
    "checkout": {"zh": "结账", "en": "Checkout"},
    "order": {"zh": "订单", "en": "Order"},
    "unpaid_order": {"zh": "未付款订单", "en": "Unpaid order"},
    "refund": {"zh": "退款", "en": "Refund"},
    "cancellation": {"zh": "订单取消", "en": "Order cancelled"},
    "deletion": {"zh": "订单删除", "en": "Order deleted"},
    "fulfillment": {"zh": "发货", "en": "Shipment"},
    "message": {"zh": "发送消息", "en": "Message sent"},
}
"""Kind -> its names. What has the name of an event's type is that event; orders and what became of them have one entry
of their own, from the tables that hold them, in place of their events."""

KINDS = frozenset(LABELS)
