-- One run of one or more rules over an audience as of an instant, in chunks fixed at its start. Whoever is at work on it
-- (preparing, running, undoing) shows as an open tick 'campaign:<id>' in schedule_ticks.
CREATE TABLE campaigns (
  shop_id      uuid NOT NULL,
  id           uuid NOT NULL,
  kind         text NOT NULL CHECK (kind IN ('cron', 'manual')),
  -- [{rule_id, key, strategy_id, version, zones}]: versions as of preparing; zones: asked of their customers only
  rules        jsonb NOT NULL,
  audience     jsonb NOT NULL DEFAULT '{}', -- {}: everybody; {"segment": key}; {"condition": ...}
  as_of        timestamptz NOT NULL,        -- shop time as of which everybody is looked at
  due_at       timestamptz NOT NULL,        -- shop time; campaigns of a shop run in this order
  state        text NOT NULL CHECK (state IN ('preparing', 'waiting_approval', 'running', 'paused', 'finished',
                                              'cancelled', 'failed')),
  reason       text,                        -- why it is paused, cancelled or failed
  attempts     smallint NOT NULL DEFAULT 0, -- failures of preparing it
  upper_id     uuid,                        -- the newest customer there was; who came later is not in it
  -- how closely its chunks are surveyed before it runs: 0 not at all, 1 who could be meant, 2 what would be decided;
  -- NULL: not known yet
  survey       smallint,
  estimate     jsonb NOT NULL DEFAULT '{}', -- what the survey found; {}: there was none
  cutoffs      jsonb NOT NULL DEFAULT '{}', -- by strategy, where its best end that its money or day has room for
  created_at   timestamptz NOT NULL,        -- system time, as all below
  created_by   text NOT NULL,
  prepared_at  timestamptz,
  started_at   timestamptz,
  finished_at  timestamptz,                 -- nothing is left to do, nor to undo
  PRIMARY KEY (shop_id, id)
);
-- cron rules that come due at the same instant are one campaign: of two schedulers the first makes it
CREATE UNIQUE INDEX campaigns_once ON campaigns (shop_id, due_at) WHERE kind = 'cron';
CREATE INDEX campaigns_open ON campaigns (shop_id, due_at, id) WHERE finished_at IS NULL;

CREATE TABLE campaign_chunks (
  shop_id     uuid NOT NULL,
  campaign_id uuid NOT NULL,
  number      integer NOT NULL,
  low         uuid NOT NULL,                -- customers with low < id <= high
  high        uuid NOT NULL,
  state       text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done')),
  attempts    smallint NOT NULL DEFAULT 0,
  error       text,                         -- of the last attempt that failed
  surveyed    smallint NOT NULL DEFAULT 0,  -- as campaigns.survey: what has been found out about it
  found       jsonb NOT NULL DEFAULT '{}',  -- by strategy, of the survey: numbers, and at 2 the samples
  claims      bytea,                        -- of the survey at 2, where something is short: who wants how much of it
  customers   integer NOT NULL DEFAULT 0,   -- looked at
  decided     integer NOT NULL DEFAULT 0,
  actions     integer NOT NULL DEFAULT 0,
  cost_minor  bigint NOT NULL DEFAULT 0,    -- what its actions may cost at most
  verdicts    jsonb NOT NULL DEFAULT '{}',  -- number of decisions by verdict
  finished_at timestamptz,                  -- system time
  PRIMARY KEY (shop_id, campaign_id, number),
  FOREIGN KEY (shop_id, campaign_id) REFERENCES campaigns (shop_id, id)
);
CREATE INDEX campaign_chunks_open ON campaign_chunks (shop_id, campaign_id, number) WHERE state = 'open';

-- Runs that were due when the last release stopped. Its wake-ups name a task there is no more: the sweep rings anew.
SELECT set_config('app.system', 'on', true);
INSERT INTO campaigns (shop_id, id, kind, rules, as_of, due_at, state, created_at, created_by)
SELECT shop_id, gen_random_uuid(), 'cron', jsonb_agg(jsonb_build_object('rule_id', substr(schedule, 6))), due_at, due_at,
       'preparing', min(taken_at), 'schedule'
FROM schedule_ticks WHERE schedule LIKE 'rule:%' AND finished_at IS NULL GROUP BY shop_id, due_at;
INSERT INTO schedule_ticks (shop_id, schedule, due_at, taken_at)
SELECT shop_id, 'campaign:' || id, due_at, created_at FROM campaigns;
DELETE FROM schedule_ticks WHERE schedule LIKE 'rule:%' AND finished_at IS NULL;
DELETE FROM outbox WHERE topic = 'schedule.run';
SELECT set_config('app.system', '', true);
