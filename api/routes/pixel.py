"""The snippet that reports what visitors do."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/api/integrations/shopify/pixel", tags=["integrations"])
