"""Shopify's global ids and the numbers in them."""

from __future__ import annotations


def gid(kind: str, number: str) -> str:
    return f"gid://shopify/{kind}/{number}"


def number_of(global_id: str) -> str:
    """`123` of gid://shopify/Product/123?…"""
    return global_id.rpartition("/")[2].partition("?")[0]
