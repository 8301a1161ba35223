"""The script for Shopify's customer events that reports what visitors do to the tracking API, once they have agreed.

It runs in every visitor's browser, so whatever is written into it is public: an API key that stands in it must be able
to do nothing but send events. `pixel.js` is the script; here it gets its settings and its instructions.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import orjson

from operation_agent.kit.errors import Rejected

Carts = Literal["pixel", "webhooks"]

_TEMPLATE = Path(__file__).with_name("pixel.js")
_SLOT = "const SETTINGS = {};"
_KEY = re.compile(r"opk_[A-Za-z0-9_-]{20,200}|PASTE [A-Za-z0-9 _.-]{1,60} HERE")

INSTRUCTIONS = {
    "zh": (
        "Shopify 后台 → 设置 → 客户事件 → 添加自定义像素，命名后用本文件的全部内容替换编辑器中的代码。",
        "权限选“不需要”：脚本自己查看访客的同意；未同意分析之前不发送任何数据，撤回同意后立即停止，之前的数据不会补发。",
        "“数据销售”选“不符合数据销售”：数据只发送到下面的地址。",
        "先点“保存”，再点“连接”。打开店铺浏览一个商品，几秒后可在该客户的时间线上看到。",
        "脚本中的密钥对访客可见，只能发送事件；撤销它（DELETE /api/keys/{id}）即可停用本脚本。",
    ),
    "en": (
        "Shopify admin > Settings > Customer events > Add custom pixel; name it, and replace all code in the editor by"
        " this file.",
        "Permission: Not required. The script looks at the visitor's consent itself: nothing leaves before analytics is"
        " allowed, it stops at once when that is withdrawn, and nothing from before is sent later.",
        "Data sale: data collected does not qualify as data sale. It goes to the address below and nowhere else.",
        "Save, then Connect. Look at a product in the shop: within seconds it stands in that visitor's timeline.",
        "Visitors can read the key in this script. It can only send events; revoking it (DELETE /api/keys/{id}) ends"
        " this script.",
    ),
}
NOT_SECURE = {
    "zh": "注意：地址不是 https，浏览器不会从 https 店铺发送到这里。请先设置 OPAGENT_PUBLIC_URL，再重新获取本脚本。",
    "en": "WARNING: the address is not https; browsers will not send to it from a shop on https. Set"
    " OPAGENT_PUBLIC_URL, then get this script again.",
}


def placeholder(prefix: str) -> str:
    """What stands in place of a key whose text is not known here: `PASTE opk_AbC123... HERE`."""
    return f"PASTE {prefix}... HERE"


def snippet(public_url: str, write_key: str, *, currency: str | None = None, carts: Carts = "pixel") -> str:
    """The script for Settings > Customer events, with how to install it (Chinese and English) in its first lines.

    `write_key` is an API key that can only send events, or a `placeholder`, with which the script does nothing but
    say so. `currency` is the shop's: amounts in another are kept under another name. `carts`: who tells of carts and
    checkouts; with "webhooks" the pixel's count as custom events, so that nothing counts twice. Raises Rejected.
    """
    if not _KEY.fullmatch(write_key):
        raise Rejected("this is not an API key of this agent: it begins with opk_", code="write_key", where="write_key")
    parts = urlsplit(public_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise Rejected("the public address is http(s)://host[/path]", code="public_url", where="public_url")
    address = f"{public_url.rstrip('/')}/v1/batch"
    settings = {"address": address, "writeKey": write_key, "currency": currency, "carts": carts}
    lines = [f"// {line}" if line else "//" for line in _head(address, is_secure=parts.scheme == "https")]
    return "\n".join(lines) + "\n" + _script().replace(_SLOT, f"const SETTINGS = {_literal(settings)};", 1)


@cache
def _script() -> str:
    return _TEMPLATE.read_text("utf-8")


def _literal(settings: dict[str, str | None]) -> str:
    """JSON that is JavaScript too, wherever it stands."""
    written = orjson.dumps(settings, option=orjson.OPT_INDENT_2).decode()
    return (
        written.replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def _head(address: str, *, is_secure: bool) -> list[str]:
    head = []
    for locale in ("zh", "en"):
        head += [f"{number}. {line}" for number, line in enumerate(INSTRUCTIONS[locale], 1)]
        head += [] if is_secure else [NOT_SECURE[locale]]
        head.append("")
    return [*head, "".join(character for character in address if character.isprintable())]
