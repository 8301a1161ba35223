"""Where a shop's Admin API is and what opens it.

Version and path are those of Shopify's own library (`shopify.ApiVersion`), which is imported when the first client is
made: it takes a tenth of a second, and the API never makes one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from operation_agent.kit.errors import Rejected

API_VERSION = "2026-07"
_QUARTERLY = re.compile(r"20\d\d-(01|04|07|10)")


@dataclass(frozen=True, slots=True)
class Access:
    """`base_url` has no path: https://example.myshopify.com, or where a fake or a proxy stands."""

    base_url: str
    token: str = field(repr=False)
    api_version: str = API_VERSION

    @property
    def host(self) -> str:
        """Whose cost allowance is used up: the domain, with its port if one is written."""
        return urlsplit(self.base_url).netloc.lower()

    def path(self) -> str:
        """Of the GraphQL endpoint. Raises Rejected when the version is none."""
        from shopify.api_version import ApiVersion

        version = ApiVersion.coerce_to_version(checked_version(self.api_version))
        return f"{version.api_path('')}/graphql.json"


def checked_version(given: str) -> str:
    """A version as Shopify names them: a quarter, or `unstable`. Any quarter: the library's list ends in 2024."""
    if given != "unstable" and not _QUARTERLY.fullmatch(given):
        raise Rejected(
            f"{given[:40]!r} is no version of Shopify's API; they are named 2026-07 (year-month of a quarter's start),"
            " or unstable",
            where="config.api_version",
        )
    return given
