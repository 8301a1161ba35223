"""Secrets at rest: tokens are stored as keyed digests, provider credentials encrypted (Fernet)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from .errors import Rejected
from .settings import Settings


def secret_key(settings: Settings) -> str:
    """The installation's secret: OPAGENT_SECRET_KEY, or `secret.key` (0600) in the data folder, made once.

    Raises Rejected when it is shorter than 32 characters.
    """
    if settings.secret_key is not None:
        if len(settings.secret_key) < 32:
            raise Rejected("OPAGENT_SECRET_KEY is shorter than 32 characters; `openssl rand -hex 32` makes one")
        return settings.secret_key
    path = Path(settings.data_dir) / "secret.key"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = secrets.token_hex(32)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_text().strip()
        with os.fdopen(handle, "w") as file:
            file.write(made)
        return made


def keyed_digest(secret: str, token: str) -> bytes:
    """HMAC-SHA256 of a high-entropy token: what the tables hold instead of API keys and session tokens."""
    return hmac.new(secret.encode(), token.encode(), hashlib.sha256).digest()


class Vault:
    """Encrypts provider credentials with a key derived from the installation's secret."""

    def __init__(self, secret: str):
        key = hashlib.sha256(b"operation-agent vault\0" + secret.encode()).digest()
        self._fernet = Fernet(base64.urlsafe_b64encode(key))

    def seal(self, plain: bytes) -> bytes:
        return self._fernet.encrypt(plain)

    def open(self, sealed: bytes) -> bytes:
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken:
            raise Rejected(
                "a stored credential was sealed with another OPAGENT_SECRET_KEY;"
                " restore that key or enter the credential again"
            ) from None
