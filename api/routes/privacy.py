"""Requests for data and erasure."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/api/privacy", tags=["privacy"])
