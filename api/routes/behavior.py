"""What a customer did, as one timeline."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/api/customers", tags=["customers"])
