// What a test tells the peer, under /control/: state, settings, faults; and what it may read.
import { all, db, digest, find, metafieldsOf, reset, seed, TOKEN } from './state.mjs';
import { authorize } from './oauth.mjs';

export const FAULTS = {
  drop_before: 'the connection is closed, nothing was done', drop_after: 'it was done, then the connection is closed',
  delay: 'answered after `seconds`', status: 'refused with `status` (and `headers`, `body`)', status_after: 'done, then answered with `status`',
  throttle: 'refused as too much for the bucket', revoke: 'the token ends with this call', user_errors: 'a mutation answers `errors`',
  graphql_errors: 'top-level `errors`', garbage: 'an answer that is not JSON', truncate: 'a download ends after `bytes`', expire: 'the address of a download is no longer good',
};

const merge = (into, from) => {
  for (const [name, value] of Object.entries(from)) {
    const isPlain = value && typeof value === 'object' && !Array.isArray(value) && into[name] && typeof into[name] === 'object';
    if (isPlain && name !== 'lines') merge(into[name], value);
    else into[name] = value;
  }
};

const plain = value => JSON.parse(JSON.stringify(value, (_, one) => (one instanceof Map ? Object.fromEntries(one) : one)));

const ACTIONS = {
  reset(_given, { resetMocks }) {
    reset();
    resetMocks();
    return {};
  },
  settings(given) {
    merge(db.settings, given);
    if (given.throttle) db.bucket = given.throttle.available === undefined ? null : { available: given.throttle.available, at: performance.now() / 1000 };
    return db.settings;
  },
  state(given) {
    const ids = {};
    for (const [type, objects] of Object.entries(given)) ids[type] = [objects].flat().map(one => seed(type, one).id);
    return ids;
  },
  token({ token = TOKEN, scopes, revoked = false, expiresAt = null }) {
    db.tokens.set(token, { scopes: scopes ?? db.tokens.get(token)?.scopes ?? db.tokens.get(TOKEN).scopes, revoked, expiresAt });
    return { token };
  },
  authorize({ code, scopes }) {
    authorize(code, scopes);
    return { code };
  },
  faults(given) {
    for (const one of [given].flat()) {
      if (!FAULTS[one.kind]) throw new Error(`a fault is one of ${Object.keys(FAULTS).join(', ')}, not ${one.kind}`);
      db.faults.push({ times: 1, skip: 0, ...one });
    }
    return { faults: db.faults.length };
  },
  uninstall() {
    for (const token of db.tokens.values()) token.revoked = true;
    return {};
  },
};

const READS = {
  calls: () => db.calls,
  state: query => (query.get('id') ? find(query.get('id')) : all(query.get('type') ?? '')),
  metafields: query => metafieldsOf(query.get('owner')),
  sent: () => db.sent,
  settings: () => db.settings,
  tokens: () => Object.fromEntries(db.tokens),
  holds: (_query, { holds }) => holds,
  digest: query => digest(query.get('value') ?? ''),
};

export function control(request, url, text, context) {
  const name = url.pathname.slice('/control/'.length);
  const action = request.method === 'GET' ? READS[name] : ACTIONS[name];
  if (!action) return { status: 404, body: { error: `no ${request.method} /control/${name}` } };
  try {
    const result = request.method === 'GET' ? action(url.searchParams, context) : action(text ? JSON.parse(text) : {}, context);
    return { status: 200, body: plain(result ?? null) };
  } catch (problem) {
    return { status: 400, body: { error: problem.message } };
  }
}

// The first fault that fits a call; `on` is the beginning of a path, an operation's name or a root field.
export function faultFor(names, kinds = null) {
  for (const fault of db.faults) {
    const fits = !fault.on || names.some(name => name === fault.on || (fault.on.startsWith('/') && name.startsWith(fault.on)));
    if (!fits || fault.times === 0 || (kinds && !kinds.includes(fault.kind))) continue;
    if (fault.skip > 0) {
      fault.skip -= 1;
      continue;
    }
    if (fault.times !== null) fault.times -= 1;
    return fault;
  }
  return null;
}
