ALTER TABLE outcomes DROP COLUMN source_order_id;
