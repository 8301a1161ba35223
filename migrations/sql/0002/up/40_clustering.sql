-- The label a customer was last seen under, and since when (shop time): it outlives a refit that begins new lineages,
-- and tells who has come into a group or left it. NULL: not looked at yet, so nobody is said to have entered.
ALTER TABLE cluster_members ADD COLUMN label_key text, ADD COLUMN label_since timestamptz;
