-- An order's outcomes follow it: what it was changed to, and which of several reports of its payment came first.
ALTER TABLE outcomes ADD COLUMN source_order_id text;  -- 'ordered' and 'redeemed'; NULL: written by an earlier release
CREATE INDEX outcomes_order ON outcomes (shop_id, source_order_id) WHERE source_order_id IS NOT NULL;
