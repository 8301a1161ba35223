"""What tests with an application share: an installation secret that is no file, and a client of the API."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from operation_agent.kit.settings import settings
from tests.serving import serve


@pytest.fixture(autouse=True, scope="module")
def _secret() -> Iterator[None]:
    """Of every module: without it the first key that is made would write a secret into the default data folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPAGENT_SECRET_KEY", "0123456789abcdef0123456789abcdef")
        settings.cache_clear()
        yield
    settings.cache_clear()


@pytest.fixture(scope="module")
def client(engine) -> Iterator[httpx.Client]:
    from api.app import create_app

    with serve(create_app(engine)) as client:
        yield client
