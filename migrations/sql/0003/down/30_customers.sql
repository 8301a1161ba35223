ALTER TABLE identities DROP COLUMN told_at, DROP COLUMN deleted_at;
DROP TABLE order_lines, unpaid_orders;
ALTER TABLE orders
  DROP COLUMN name, DROP COLUMN financial_status, DROP COLUMN fulfillment_status, DROP COLUMN tax_minor,
  DROP COLUMN shipping_minor, DROP COLUMN presentment_currency, DROP COLUMN deleted_at, DROP COLUMN digest,
  DROP COLUMN customer_at, DROP COLUMN paid_event_id;
