"""The least a FastAPI route can do with a signed webhook: the yardstick of bench/shopify_intake.py."""

from __future__ import annotations

import base64
import hashlib
import hmac

from fastapi import FastAPI, HTTPException, Request

SECRET = "bench-bench-bench-bench-bench-bench"

app = FastAPI()


@app.post("/signed")
async def signed(request: Request) -> dict[str, bool]:
    wanted = base64.b64encode(hmac.new(SECRET.encode(), await request.body(), hashlib.sha256).digest())
    if not hmac.compare_digest(wanted, request.headers.get("x-shopify-hmac-sha256", "").encode()):
        raise HTTPException(401)
    return {"ok": True}
