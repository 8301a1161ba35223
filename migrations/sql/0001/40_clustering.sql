CREATE TABLE clusterings (
  shop_id       uuid NOT NULL,
  id            uuid NOT NULL,
  version       integer NOT NULL,
  state         text NOT NULL CHECK (state IN ('live', 'retired', 'inconclusive')),
  features      text[] NOT NULL,
  k             integer,
  model         jsonb NOT NULL,             -- imputation, log1p mask, mean, scale, centroids: enough to assign
  quality       jsonb NOT NULL,             -- silhouette, stability, smallest share, every k that was tried, or the reason
  customers     bigint NOT NULL,
  as_of         timestamptz NOT NULL,       -- shop time
  fitted_at     timestamptz NOT NULL,       -- system time
  members_at    timestamptz,                -- system time; NULL in a live one: a crash left members to be assigned
  PRIMARY KEY (shop_id, id),
  UNIQUE (shop_id, version)
);
CREATE UNIQUE INDEX clusterings_one_live ON clusterings (shop_id) WHERE state = 'live';

CREATE TABLE clusters (
  shop_id        uuid NOT NULL,
  clustering_id  uuid NOT NULL,
  number         smallint NOT NULL,
  -- what a rule points at. A refit hands it on only to the cluster that is the same people (see lineage)
  lineage_id     uuid NOT NULL,
  parent         jsonb NOT NULL DEFAULT '{}',  -- verdict, kind, previous lineage, overlap, centroid shift
  label_key      text NOT NULL,
  labels         jsonb NOT NULL,            -- {"en", "zh", "why": {"en", "zh"}, "also": other label keys that hold}
  size           bigint NOT NULL,
  profile        jsonb NOT NULL,            -- median of each feature, in its own unit; null: nobody has it
  PRIMARY KEY (shop_id, clustering_id, number)
);

CREATE TABLE cluster_members (
  shop_id       uuid NOT NULL,
  customer_id   uuid NOT NULL,
  clustering_id uuid NOT NULL,
  number        smallint NOT NULL,
  lineage_id    uuid NOT NULL,
  distance      double precision NOT NULL,
  since         timestamptz NOT NULL,       -- shop time it entered this lineage
  as_of         timestamptz NOT NULL,       -- shop time of the features it was assigned by: the newest one wins
  PRIMARY KEY (shop_id, customer_id)
) WITH (fillfactor = 90);
CREATE INDEX cluster_members_lineage ON cluster_members (shop_id, lineage_id);
