"""Segment's HTTP tracking API."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["tracking"])
