"""The page that an operator is shown who comes back from granting access, in English and Chinese."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from starlette.responses import HTMLResponse

from integrations.shopify import oauth
from operation_agent.kit.errors import AgentError, Denied, Retryable

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex"><title>Shopify</title>
<style>
:root {{ color-scheme: light dark; font: 17px/1.6 system-ui, "PingFang SC", "Noto Sans SC", sans-serif }}
body {{ max-width: 36rem; margin: 4rem auto; padding: 0 1.25rem }}
code {{ font-size: .85em }}
</style></head><body>{content}</body></html>
"""
_REASONS: dict[str, dict[str, str]] = {
    "callback": {"en": "Nothing was connected: access was not granted.", "zh": "未连接：没有完成授权。"},
    "domain": {"en": "Nothing was connected: it is another shop.", "zh": "未连接：返回的是另一家店铺。"},
    "hmac": {
        "en": "Nothing was connected: this does not come from Shopify.",
        "zh": "未连接：签名不正确，并非来自 Shopify。",
    },
    "timestamp": {"en": "Nothing was connected: it took too long.", "zh": "未连接：时间过长，或时钟不准。"},
    "state": {"en": "Nothing was connected: please begin again.", "zh": "未连接：请重新开始连接。"},
    "state_expired": {"en": "Nothing was connected: it took too long.", "zh": "未连接：已超过十分钟，请重新开始。"},
    "grant_refused": {"en": "Nothing was connected: Shopify refused.", "zh": "未连接：Shopify 拒绝了请求。"},
    "": {"en": "Nothing was connected.", "zh": "未能连接。"},
}
_NEXT = {
    "en": "Webhooks are being set up now. You may close this page.",
    "zh": "正在设置 Webhook，可以关闭此页。",
}


def _page(content: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(content=content), status, headers=_HEADERS)


def refused(error: AgentError) -> HTMLResponse:
    """It did not, and why."""
    said = _REASONS.get(error.code, _REASONS[""])
    status = 503 if isinstance(error, Retryable) else 403 if isinstance(error, Denied) else 400
    paragraphs = f'<h1>{said["en"]}</h1><p lang="zh">{said["zh"]}</p><p>{escape(error.detail)}</p>'
    return _page(f'{paragraphs}<p><code id="code">{escape(error.code)}</code></p>', status)


def connected(shop_domain: str, granted: Sequence[str]) -> HTMLResponse:
    """It worked; what does not work yet for want of a scope."""
    domain = escape(shop_domain)
    done = f'<h1>{domain} is connected.</h1><p lang="zh">{domain} 已连接。</p>'
    lacking = oauth.lacking_by_feature(granted)
    rows = "".join(
        f'<li>{oauth.FEATURES[name].labels["en"]} · <span lang="zh">{oauth.FEATURES[name].labels["zh"]}</span>:'
        f" <code>{', '.join(scopes)}</code></li>"
        for name, scopes in lacking.items()
        if not oauth.FEATURES[name].optional
    )
    if rows:
        done += (
            f'<p>Not granted, so this does not work yet · <span lang="zh">以下权限尚未授予：</span></p><ul>{rows}</ul>'
        )
    return _page(f'{done}<p>{_NEXT["en"]}</p><p lang="zh">{_NEXT["zh"]}</p>')
