// The published schema made executable: what the peer holds is answered from its state, all else is mocked by type.
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import {
  getNamedType, getNullableType, isAbstractType, isEnumType, isListType, isNonNullType, isObjectType, isScalarType, GraphQLError,
} from 'graphql';
import { makeExecutableSchema } from '@graphql-tools/schema';
import { addMocksToSchema, createMockStore, isRef } from '@graphql-tools/mock';
import { requireMutation, requireType } from './access.mjs';
import { page } from './connections.mjs';
import { scalars } from './scalars.mjs';
import { db, find, gid, metafieldsOf, now, numberOf, typeOf } from './state.mjs';

export function buildAdminSchema(path, { queries, mutations, fields }) {
  const raw = readFileSync(path);
  const typeDefs = (path.endsWith('.gz') ? gunzipSync(raw) : raw).toString('utf8');
  const resolvers = Object.fromEntries(scalars.map(one => [one.name, one]));
  const plain = makeExecutableSchema({ typeDefs, resolvers, assumeValidSDL: true, assumeValid: true });
  const store = createMockStore({ schema: plain, mocks: mocksFor(plain) });
  const schema = addMocksToSchema({ schema: plain, store });
  checkNames(schema.getQueryType(), queries);
  checkNames(schema.getMutationType(), mutations);
  for (const [name, own] of Object.entries(fields)) checkNames(schema.getType(name), own);
  for (const type of Object.values(schema.getTypeMap())) {
    if (isAbstractType(type)) type.resolveType = value => value.__typename ?? value.$ref?.typeName;
    if (!isObjectType(type) || type.name.startsWith('__')) continue;
    const own = { [schema.getQueryType().name]: queries, [schema.getMutationType().name]: mutations }[type.name];
    for (const field of Object.values(type.getFields())) {
      field.resolve = own ? root(field, own[field.name], type === schema.getMutationType()) : member(field, fields[type.name]?.[field.name]);
    }
  }
  return { schema, resetMocks: () => store.reset() };
}

function checkNames(type, resolvers) {
  for (const name of Object.keys(resolvers)) {
    if (!type?.getFields()[name]) throw new Error(`the schema has no ${type?.name}.${name} (another version?)`);
  }
}

function mocksFor(schema) {
  const mocks = {
    ARN: () => 'arn:aws:events:us-east-1::event-source/x', BigInt: () => '1', Color: () => '#000000', Date: () => '2026-01-01',
    DateTime: now, Decimal: () => '1.0', FormattedString: () => 'text', HTML: () => '<p>text</p>', Money: () => '1.00',
    StorefrontID: () => 'id', URL: () => 'https://peer.example/', UnsignedInt64: () => '1', UtcOffset: () => '+00:00', JSON: () => ({}),
  };
  for (const type of Object.values(schema.getTypeMap())) {
    if (isObjectType(type) && type.name.endsWith('Payload')) {
      const errors = Object.keys(type.getFields()).filter(name => name.endsWith('serErrors'));
      mocks[type.name] = () => Object.fromEntries(errors.map(name => [name, []]));
    } else if (isObjectType(type) && type.getFields().id) {
      mocks[type.name] = () => ({ id: gid(type.name, db.nextId++) });
    }
  }
  return mocks;
}

function root(field, own, isMutation) {
  const mocked = field.resolve;
  const named = getNamedType(field.type);
  return (source, args, context, info) => {
    if (isMutation) requireMutation(field.name, context);
    else requireType(named.name.replace(/Connection$/, ''), field.name, context);
    checkIds(field, args);
    checkSizes(args);
    context.called?.push({ field: field.name, mocked: !own });
    const forced = isMutation ? context.refusal?.(field.name) : null;
    if (forced) return { userErrors: forced };
    if (!own) return mocked(source, args, context, info);
    const value = own(args, context, info);
    return isMutation ? value : shaped(value, field.type, args, context);
  };
}

function checkIds(field, args) {
  for (const argument of field.args) {
    if (getNamedType(argument.type).name !== 'ID') continue;
    for (const id of [args[argument.name] ?? []].flat()) {
      if (typeOf(id) === null) throw new GraphQLError(`Invalid global id '${id}'`, { extensions: { code: 'argumentLiteralsIncompatible' } });
    }
  }
}

function checkSizes(value, path = '') {
  if (Array.isArray(value)) {
    if (value.length > 250 && !path.endsWith('.variants')) {
      throw new GraphQLError(`The input array size of ${value.length} is greater than the maximum allowed of 250.`, {
        extensions: { code: 'MAX_INPUT_SIZE_EXCEEDED' },
      });
    }
    for (const one of value) checkSizes(one, path);
  } else if (value && typeof value === 'object') {
    for (const [name, one] of Object.entries(value)) checkSizes(one, `${path}.${name}`);
  }
}

function member(field, own) {
  const mocked = field.resolve;
  return (source, args, context, info) => {
    if (isRef(source)) return mocked(source, args, context, info);
    requireType(getNamedType(field.type).name.replace(/Connection$/, ''), field.name, context);
    const value = own ? own(source, args, context, info) : held(source, field, args);
    return shaped(value, field.type, args, context, source);
  };
}

function held(source, field, args) {
  const value = source[field.name];
  if (value !== undefined) return typeof value === 'function' ? value(args) : value;
  switch (field.name) {
    case 'legacyResourceId': return numberOf(source.id);
    case 'metafield': return metafieldsOf(source.id).find(one => one.key === args.key && one.namespace === (args.namespace ?? '$app')) ?? null;
    case 'metafields': return metafieldsOf(source.id).filter(one => (!args.namespace || one.namespace === args.namespace)
      && (!args.keys || args.keys.includes(`${one.namespace}.${one.key}`)));
    case 'defaultCursor': return Buffer.from(source.id).toString('base64');
    default: return undefined;
  }
}

// A value of the state in the shape of its field: a list becomes a page, an id the object, an amount money.
function shaped(value, type, args, context, source = null) {
  const bare = getNullableType(type);
  if (isListType(bare)) {
    if (value == null) return isNonNullType(type) ? [] : null;
    const items = Array.isArray(value) ? value : [value];
    return items.slice(0, args.first ?? items.length).map(one => shaped(one, bare.ofType, {}, context, source));
  }
  if (isObjectType(bare) && bare.name.endsWith('Connection') && bare.getFields().pageInfo) {
    if (value == null && !isNonNullType(type)) return null;
    const nodes = (value ?? []).map(one => (typeof one === 'string' && one.startsWith('gid://') ? find(one) : one)).filter(one => one !== null);
    return page(nodes, args, { bulk: context.bulk });
  }
  if (value == null) return isNonNullType(type) ? zero(bare, source) : null;
  if (isScalarType(bare) || isEnumType(bare)) return value;
  if (bare.name === 'MoneyBag') return moneyBag(value, source);
  if (bare.name === 'MoneyV2') return money(value, source);
  if (bare.name === 'Count') return typeof value === 'number' ? { count: value, precision: 'EXACT' } : value;
  if (typeof value === 'string' && value.startsWith('gid://')) return find(value) ?? (isNonNullType(type) ? zero(bare, source) : null);
  return value;
}

const currencyOf = source => source?.currencyCode ?? find(gid('Shop', 1)).currencyCode;

function money(value, source) {
  return typeof value === 'object' ? value : { amount: String(value), currencyCode: currencyOf(source) };
}

function moneyBag(value, source) {
  if (typeof value === 'object') return { presentmentMoney: value.shopMoney, ...value };
  const amount = money(value, source);
  return { shopMoney: amount, presentmentMoney: amount };
}

const NOTHING = { Int: 0, Float: 0, Boolean: false, UnsignedInt64: '0', BigInt: '0', Money: '0.00', Decimal: '0.0', URL: 'https://peer.example/', JSON: {} };

function zero(type, source) {
  if (isScalarType(type)) {
    if (type.name === 'DateTime') return source?.createdAt ?? now();
    return type.name === 'ID' ? gid('Unknown', 0) : NOTHING[type.name] ?? '';
  }
  if (isEnumType(type)) return type.name === 'CurrencyCode' ? currencyOf(source) : type.getValues()[0].value;
  if (type.name === 'MoneyBag') return moneyBag('0.00', source);
  if (type.name === 'MoneyV2') return money('0.0', source);
  if (type.name === 'Count') return { count: 0, precision: 'EXACT' };
  if (isAbstractType(type)) throw new GraphQLError(`the peer does not hold this ${type.name}`, { extensions: { code: 'INTERNAL_SERVER_ERROR' } });
  return { __typename: type.name, createdAt: source?.createdAt, currencyCode: source?.currencyCode };
}
