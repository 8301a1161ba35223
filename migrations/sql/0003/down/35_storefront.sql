DROP TABLE shop_changes, storefront_syncs, storefront_listings, checkouts, carts, fulfillments, discount_codes, discounts,
  collection_products, collections, inventory_levels, variants, products;
ALTER TABLE shops DROP COLUMN storefront;
