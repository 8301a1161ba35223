"""The shop's catalogue, as its storefront told us."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field

from api.dependencies import Database, Requires
from api.errors import Problem
from api.fields import Text
from api.pagination import Page, Paged
from operation_agent.access.principal import Principal
from operation_agent.store.session import for_shop
from operation_agent.storefront import catalogue

router = APIRouter(prefix="/api/storefront", tags=["storefront"])
Reader = Annotated[Principal, Depends(Requires("storefront:read"))]
Search = Annotated[Text | None, Query(max_length=255)]
Status = Annotated[Text | None, Query(max_length=40, description="As the shop names it, in any case: active, draft")]


class ProductSummary(BaseModel):
    product_id: str = Field(description="The shop's own id")
    title: str | None
    handle: str | None
    vendor: str | None
    product_type: str | None
    status: str | None
    tags: list[str]
    image_url: str | None
    published_at: datetime | None
    updated_at: datetime = Field(description="By the shop's clock")
    variants: int
    lowest_minor: int | None = Field(description="Price of the cheapest variant, minor units of the shop's currency")
    highest_minor: int | None
    inventory: int | None = Field(description="Pieces in all its variants; null: not told")


class InventoryLevel(BaseModel):
    location_id: str
    available: int | None
    updated_at: datetime


class Variant(BaseModel):
    variant_id: str
    title: str | None
    sku: str | None
    barcode: str | None
    price_minor: int | None
    compare_at_minor: int | None
    position: int | None
    inventory_item_id: str | None
    inventory_quantity: int | None
    inventory_policy: str | None
    updated_at: datetime
    levels: list[InventoryLevel] = Field(description="Stock by location")


class InCollection(BaseModel):
    collection_id: str
    title: str | None


class Product(BaseModel):
    product_id: str
    title: str | None
    handle: str | None
    vendor: str | None
    product_type: str | None
    status: str | None
    tags: list[str]
    image_url: str | None
    seo_title: str | None
    seo_description: str | None
    published_at: datetime | None
    updated_at: datetime
    lowest_minor: int | None
    highest_minor: int | None
    inventory: int | None
    variants: list[Variant]
    collections: list[InCollection]


class Collection(BaseModel):
    collection_id: str
    title: str | None
    handle: str | None
    sort_order: str | None
    is_automatic: bool | None
    published_at: datetime | None
    updated_at: datetime
    products: int


class Discount(BaseModel):
    discount_id: str
    title: str | None
    status: str | None
    method: str | None = Field(description="code or automatic")
    kind: str | None
    starts_at: datetime | None
    ends_at: datetime | None
    usage_limit: int | None
    used: int | None
    updated_at: datetime
    code_count: int
    codes: list[str] = Field(description=f"The first {catalogue.CODES}, in alphabetical order")


class Counts(BaseModel):
    products: int
    variants: int
    collections: int
    discounts: int
    discount_codes: int
    inventory_levels: int


@router.get(
    "/products",
    operation_id="list_products",
    summary="The shop's products, by id; or those found by title or SKU",
    response_model=Page[ProductSummary],
    responses={400: {"model": Problem, "description": "A cursor of another list"}},
)
def list_products(
    caller: Reader,
    database: Database,
    paging: Paged,
    q: Search = None,
    status: Status = None,
    collection: Annotated[Text | None, Query(max_length=255, description="Products of this collection only")] = None,
) -> Any:
    """`q`: part of a title, or the beginning of a SKU."""
    (after,) = paging.after(str)
    with for_shop(database, caller.shop.id) as session:
        rows = catalogue.products(
            session, caller.shop.id, q=q or None, status=status, collection_id=collection, after=after,
            limit=paging.limit + 1,
        )  # fmt: skip
    return paging.page(rows, lambda row: ProductSummary(**row._asdict()), lambda row: (row.product_id,))


@router.get(
    "/products/{product_id}",
    operation_id="get_product",
    summary="One product with its variants, their stock by location, and its collections",
    response_model=Product,
    responses={404: {"model": Problem, "description": "No such product, as far as the shop told us"}},
)
def get_product(
    product_id: Annotated[Text, Path(max_length=255)], caller: Reader, database: Database
) -> Product:  # fmt: skip
    with for_shop(database, caller.shop.id) as session:
        return Product(**catalogue.product(session, caller.shop.id, product_id))


@router.get(
    "/collections",
    operation_id="list_collections",
    summary="The shop's collections, by id; or those found by title",
    response_model=Page[Collection],
    responses={400: {"model": Problem, "description": "A cursor of another list"}},
)
def list_collections(caller: Reader, database: Database, paging: Paged, q: Search = None) -> Any:
    (after,) = paging.after(str)
    with for_shop(database, caller.shop.id) as session:
        rows = catalogue.collections(session, caller.shop.id, q=q or None, after=after, limit=paging.limit + 1)
    return paging.page(rows, lambda row: Collection(**row._asdict()), lambda row: (row.collection_id,))


@router.get(
    "/discounts",
    operation_id="list_discounts",
    summary="The shop's discounts with their codes, by id; or the one with a code",
    response_model=Page[Discount],
    responses={400: {"model": Problem, "description": "A cursor of another list"}},
)
def list_discounts(
    caller: Reader,
    database: Database,
    paging: Paged,
    code: Annotated[Text | None, Query(max_length=255, description="Has this code, in any case")] = None,
    status: Status = None,
) -> Any:
    (after,) = paging.after(str)
    with for_shop(database, caller.shop.id) as session:
        rows = catalogue.discounts(
            session, caller.shop.id, code=code, status=status, after=after, limit=paging.limit + 1
        )  # fmt: skip
    return paging.page(rows, lambda row: Discount(**row._asdict()), lambda row: (row.discount_id,))


@router.get(
    "/counts",
    operation_id="count_catalogue",
    summary="How many things of each kind the shop has, as far as it told us",
    response_model=Counts,
)
def get_counts(caller: Reader, database: Database) -> Counts:
    with for_shop(database, caller.shop.id) as session:
        return Counts(**catalogue.counts(session, caller.shop.id))
