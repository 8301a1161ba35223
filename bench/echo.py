"""The least a FastAPI route can do with a JSON body: the yardstick of bench/intake.py."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request

app = FastAPI()


@app.post("/echo")
async def echo(request: Request) -> Any:
    return await request.json()
