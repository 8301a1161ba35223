DROP TABLE watches;
DROP TABLE runs;
