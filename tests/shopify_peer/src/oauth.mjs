// POST /admin/oauth/access_token: a code, or a refresh token, for an access token.
import { timingSafeEqual } from 'node:crypto';
import { db, milliseconds } from './state.mjs';
import { has, listed } from './access.mjs';

const made = prefix => `${prefix}${Math.random().toString(16).slice(2)}${Math.random().toString(16).slice(2)}`;
const wrong = (code, description, status = 400) => ({ status, body: { error: code, error_description: description } });

export function exchange(given) {
  const { app } = db.settings;
  if (given.client_id !== app.clientId || !same(given.client_secret, app.clientSecret)) return wrong('invalid_client', 'Client authentication failed.', 401);
  if (given.grant_type === 'refresh_token' || given.refresh_token) return refresh(given);
  if (!given.code) return wrong('invalid_request', 'The authorization code is missing.');
  const scopes = db.codes.get(given.code);
  if (!scopes) return wrong('invalid_request', 'The authorization code was not found or was already used');
  db.codes.delete(given.code); // a code works once
  return issue(scopes, ['1', 'true', 1, true].includes(given.expiring));
}

function same(one, other) {
  const [a, b] = [Buffer.from(String(one ?? '')), Buffer.from(other)];
  return a.length === b.length && timingSafeEqual(a, b);
}

function issue(scopes, expiring, previous = null) {
  const { expiresIn, refreshExpiresIn } = db.settings.oauth;
  const token = made('shpat_');
  const shown = scopes.filter(one => !one.startsWith('read_') || !has(scopes.filter(other => other.startsWith('write_')), one));
  db.tokens.set(token, { scopes, expiresAt: expiring ? milliseconds() + expiresIn * 1000 : null, revoked: false, replaces: previous });
  const body = { access_token: token, scope: shown.join(',') };
  if (expiring) {
    const refreshToken = made('shprt_');
    db.refreshTokens.set(refreshToken, { scopes, expiresAt: milliseconds() + refreshExpiresIn * 1000, access: token });
    db.tokens.get(token).refresh = refreshToken;
    Object.assign(body, { expires_in: expiresIn, refresh_token: refreshToken, refresh_token_expires_in: refreshExpiresIn });
  }
  return { status: 200, body };
}

function refresh(given) {
  const held = db.refreshTokens.get(given.refresh_token);
  if (!held || held.expiresAt <= milliseconds()) return wrong('invalid_request', 'This request requires an active refresh_token');
  settle(db.tokens.get(held.access));
  // Shopify keeps a used refresh token until its replacement is first used, so that a lost answer is no lost shop.
  if (!db.settings.oauth.retainPrevious) db.refreshTokens.delete(given.refresh_token);
  if (!db.settings.oauth.retainPrevious) revoke(held.access);
  return issue(held.scopes, true, db.settings.oauth.retainPrevious ? { refreshToken: given.refresh_token, access: held.access } : null);
}

function revoke(access) {
  const token = db.tokens.get(access);
  if (token) token.revoked = true;
}

// The first use of a new token ends the two that it came from.
export function settle(token) {
  if (!token?.replaces) return;
  db.refreshTokens.delete(token.replaces.refreshToken);
  revoke(token.replaces.access);
  token.replaces = null;
}

export function authorize(code, scopes) {
  db.codes.set(code, scopes ?? listed(db.settings.oauth.scopes ?? [...db.tokens.values()][0].scopes));
}
