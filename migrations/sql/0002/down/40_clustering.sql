ALTER TABLE cluster_members DROP COLUMN label_key, DROP COLUMN label_since;
