"""Discount codes made ahead."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/api/storefront/code-pools", tags=["storefront"])
