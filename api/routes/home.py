"""What a person sees who opens the address in a browser."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import HTMLResponse

router = APIRouter(tags=["home"])

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Operation Agent</title>
<style>
:root { color-scheme: light dark; font: 16px/1.6 system-ui, "PingFang SC", "Noto Sans SC", sans-serif }
body { max-width: 42rem; margin: 4rem auto; padding: 0 1.25rem }
h1 { font-size: 1.6rem; margin-bottom: 0 } p[lang=zh] { margin-top: 0; opacity: .75 }
dt { font-weight: 600; margin-top: .8rem } dd { margin: 0 } code { font-size: .92em }
</style></head>
<body>
<h1>Operation Agent</h1>
<p lang="zh">电商运营智能体：观察 → 分群 → 决策 → 执行 → 学习</p>
<p>It watches what customers do, groups them, decides for each what is worth doing, does it, and measures what that
changed against customers it left alone.</p>
<dl>
<dt><a href="docs">docs</a></dt><dd>The API, to read and to try. 接口文档</dd>
<dt><a href="openapi.json">openapi.json</a></dt><dd>The same for programs (OpenAPI 3.1)</dd>
<dt><code>/api/…</code></dt><dd>Admin API: shops, customers, clusterings, strategies, decisions, actions, effects, …
Bearer API key or log-in</dd>
<dt><code>/v1/batch</code></dt><dd>Events in, as Segment's libraries send them. 事件接入</dd>
<dt><code>/webhooks/{vendor}/{shop}</code></dt><dd>What providers report back</dd>
<dt><a href="readyz">readyz</a></dt><dd>Whether every part is up. 运行状态</dd>
</dl>
</body></html>
"""


@router.get("/", operation_id="get_home", summary="What runs here", response_class=HTMLResponse)
async def get_home() -> HTMLResponse:
    return HTMLResponse(
        _PAGE, headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"}
    )
