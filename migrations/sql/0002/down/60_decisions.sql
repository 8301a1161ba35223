DROP INDEX timeline_complaints;
DROP TABLE estimators;
