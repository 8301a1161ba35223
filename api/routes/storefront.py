"""The shop's catalogue and its syncs."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/api/storefront", tags=["storefront"])
