"""Connecting a shop by its own grant of access."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["integrations"])
