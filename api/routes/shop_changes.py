"""Changes made at the shop, and taken back."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/api/storefront/changes", tags=["storefront"])
