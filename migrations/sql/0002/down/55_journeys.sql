DROP TABLE watches;
DROP TABLE runs;
DROP INDEX customers_time_zone;
