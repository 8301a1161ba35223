// The app itself: its installation, its webhook subscriptions, the shop, and things by id whatever they are.
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { parse } from 'graphql';
import { has, listed, requireType } from '../access.mjs';
import { all, db, find, gid, put, remove, touch, typeOf } from '../state.mjs';
import { accept, error, known, load, refuse } from './shared.mjs';

const topicScopes = new Map(); // topic -> the scopes of which one is needed

// The schema's own words about each topic: "Requires the `read_orders` scope."
export function learnTopics(path) {
  const raw = readFileSync(path);
  const text = (path.endsWith('.gz') ? gunzipSync(raw) : raw).toString('utf8');
  const start = text.indexOf('\nenum WebhookSubscriptionTopic {');
  const source = text.slice(start, text.indexOf('\n}\n', start) + 2);
  for (const value of parse(source).definitions[0].values) {
    const said = (value.description?.value ?? '').replace(/\s+/g, ' ');
    const [, scopes = ''] = /Requires (?:the|at least one of the following scopes:|the following scopes:)\s*([^.]*)/.exec(said) ?? [];
    topicScopes.set(value.name.value, scopes.match(/\b(?:read|write)_[a-z_]+/g) ?? []);
  }
}

export const queries = {
  shop: () => find(gid('Shop', 1)),
  node: ({ id }, context) => nodeOf(id, 'node', context),
  nodes: ({ ids }, context) => ids.map(id => nodeOf(id, 'nodes', context)),
  job: ({ id }) => load('Job', id),
  app: () => find(gid('App', 1)),
  currentAppInstallation: (_args, context) => ({
    __typename: 'AppInstallation', id: gid('AppInstallation', 1), launchUrl: 'https://peer.example/apps/1', app: gid('App', 1),
    accessScopes: listed(context.scopes).map(handle => ({ handle, description: handle })),
  }),
  webhookSubscription: ({ id }) => load('WebhookSubscription', id),
  webhookSubscriptions: ({ topics, uri, callbackUrl, format }) => all('WebhookSubscription').filter(one => (!topics || topics.includes(one.topic))
    && (!(uri ?? callbackUrl) || one.uri === (uri ?? callbackUrl)) && (!format || one.format === format)),
};

function nodeOf(id, field, context) {
  const type = typeOf(id);
  if (type) requireType(type, field, context);
  return find(id);
}

function addressError(uri) {
  if (!uri) return error(['webhookSubscription', 'callbackUrl'], "Address can't be blank");
  if (/^arn:aws:events:|^pubsub:\/\//.test(uri)) return null;
  let url;
  try {
    url = new URL(uri);
  } catch {
    return error(['webhookSubscription', 'callbackUrl'], 'Address is invalid');
  }
  if (url.protocol !== 'https:') return error(['webhookSubscription', 'callbackUrl'], 'Address protocol http:// is not supported');
  if (['localhost', '127.0.0.1'].includes(url.hostname)) return error(['webhookSubscription', 'callbackUrl'], 'Address cannot be a local or private address');
  return null;
}

const addressOf = given => given.uri ?? given.callbackUrl;
const sameSubscription = (one, topic, uri, filter) => one.topic === topic && one.uri === uri && (one.filter ?? null) === (filter ?? null);

export const mutations = {
  webhookSubscriptionCreate({ topic, webhookSubscription: given }, context) {
    const none = errors => ({ webhookSubscription: null, ...refuse(errors) });
    const wanted = topicScopes.get(topic) ?? [];
    if (wanted.length && !wanted.some(scope => has(context.scopes, scope))) return none(error(['topic'], 'You do not have permission to subscribe to this topic.'));
    const uri = addressOf(given);
    const wrong = addressError(uri);
    if (wrong) return none(wrong);
    if (all('WebhookSubscription').some(one => sameSubscription(one, topic, uri, given.filter))) return none(error(['webhookSubscription', 'callbackUrl'], 'Address for this topic has already been taken'));
    return accept({ webhookSubscription: put('WebhookSubscription', {
      topic, uri, callbackUrl: uri, format: given.format ?? 'JSON', filter: given.filter ?? null, includeFields: given.includeFields ?? [],
      metafieldNamespaces: given.metafieldNamespaces ?? [], name: given.name ?? null,
      endpoint: { __typename: 'WebhookHttpEndpoint', callbackUrl: uri }, apiVersion: version(),
    }) });
  },
  webhookSubscriptionUpdate({ id, webhookSubscription: given }) {
    const held = known('WebhookSubscription', id);
    if (!held) return { webhookSubscription: null, ...refuse(error(['id'], 'Webhook subscription does not exist')) };
    const uri = addressOf(given) ?? held.uri;
    const wrong = addressError(uri);
    if (wrong) return { webhookSubscription: null, ...refuse(wrong) };
    if (all('WebhookSubscription').some(one => one !== held && sameSubscription(one, held.topic, uri, given.filter ?? held.filter))) {
      return { webhookSubscription: null, ...refuse(error(['webhookSubscription', 'callbackUrl'], 'Address for this topic has already been taken')) };
    }
    const { uri: _uri, callbackUrl: _url, metafields: _metafields, ...plain } = given;
    return accept({ webhookSubscription: touch(held, { ...plain, uri, callbackUrl: uri, endpoint: { __typename: 'WebhookHttpEndpoint', callbackUrl: uri } }) });
  },
  webhookSubscriptionDelete({ id }) {
    const held = known('WebhookSubscription', id);
    if (!held) return { deletedWebhookSubscriptionId: null, ...refuse(error(['id'], 'Webhook subscription does not exist')) };
    remove(held);
    return accept({ deletedWebhookSubscriptionId: id });
  },
  appUninstall(_args, context) {
    context.token.revoked = true;
    return accept({ app: gid('App', 1) });
  },
};

const version = () => ({ handle: db.settings.version, displayName: db.settings.version, supported: true });

export const fields = {
  Shop: { orderNumberFormatPrefix: () => '#' },
};
