-- One customer on the way through an arm that waits or branches. Where it stands is a path in the tree of steps of the
-- rule version it entered; arms that only wait for time are planned whole and have no row here.
CREATE TABLE runs (
  shop_id       uuid NOT NULL,
  id            uuid NOT NULL,
  strategy_id   uuid NOT NULL,
  rule_id       uuid NOT NULL,
  rule_version  integer NOT NULL,           -- a run ends on the version it entered
  customer_id   uuid NOT NULL,
  random_key    uuid NOT NULL,              -- as it was on entering: dedupe keys are made of it, merged or not
  enrolment_key text NOT NULL,
  decision_id   uuid NOT NULL,
  campaign_id   uuid,
  arm           text NOT NULL,
  held_out      boolean NOT NULL,           -- walks the same way
  -- of the triggering event: {type, source, source_id, event_id, name, at, received_at, properties}
  trigger       jsonb NOT NULL,
  dedupe_key    text NOT NULL,              -- rule:version:random key:trigger:arm; an action's is this and its number
  zone          text NOT NULL,              -- IANA name: the customer's on entering, or the shop's
  costs         bigint[] NOT NULL,          -- what each action of the arm may cost at most, by its number; minor units
  coupon        smallint,                   -- number of the latest coupon step on its way
  state         text NOT NULL CHECK (state IN ('waiting', 'finished', 'exited')),
  path          text NOT NULL,              -- where it stands, or stood last
  kind          text CHECK (kind IN ('wait', 'branch')),
  listens_from  timestamptz,                -- shop time; of a wait: events from here to due_at count
  due_at        timestamptz,                -- shop time: when the branch is looked at, or the wait is over
  events        text[] NOT NULL DEFAULT '{}',   -- that the wait is for
  exit_on       text[] NOT NULL DEFAULT '{}',
  exit_reason   text,                       -- an event type, 'strategy_ended', 'in_flight_exit', or who took it out
  entered_at    timestamptz NOT NULL,       -- shop time of the decision
  left_at       timestamptz,                -- shop time
  updated_at    timestamptz NOT NULL,       -- system time
  PRIMARY KEY (shop_id, id),
  UNIQUE (shop_id, dedupe_key),
  CHECK ((state = 'waiting') = (due_at IS NOT NULL AND kind IS NOT NULL AND left_at IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX runs_due ON runs (shop_id, due_at) WHERE state = 'waiting';
CREATE INDEX runs_of_customer ON runs (shop_id, customer_id);
CREATE INDEX runs_of_rule ON runs (shop_id, rule_id) WHERE state = 'waiting';
CREATE INDEX runs_of_strategy ON runs (shop_id, strategy_id) WHERE state = 'waiting';

-- A goal that somebody has still to reach: `missed` rules. It goes when the goal is reached, or when it is due.
CREATE TABLE watches (
  shop_id     uuid NOT NULL,
  rule_id     uuid NOT NULL,
  key         text NOT NULL,                -- source/source_id of the event that began it
  customer_id uuid NOT NULL,
  goals       text[] NOT NULL,
  began_at    timestamptz NOT NULL,         -- shop time
  due_at      timestamptz NOT NULL,         -- shop time
  event       jsonb NOT NULL,               -- as runs.trigger
  PRIMARY KEY (shop_id, rule_id, key)
);
CREATE INDEX watches_due ON watches (shop_id, due_at);
CREATE INDEX watches_of_customer ON watches (shop_id, customer_id);

-- Which time zones customers live in, for schedules by their own clocks.
CREATE INDEX customers_time_zone ON customers (shop_id, time_zone) WHERE time_zone IS NOT NULL AND merged_into IS NULL;
