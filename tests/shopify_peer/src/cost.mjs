// What a request costs and whether the bucket holds it: https://shopify.dev/docs/api/usage/limits
import { getNamedType, GraphQLError, isAbstractType, isLeafType, isObjectType, Kind } from 'graphql';
import { db } from './state.mjs';

const MUTATION = 10;
const CONNECTION = 2;
const DOCUMENTATION = 'https://shopify.dev/api/usage/rate-limits';

// `sized` tells how many objects a connection holds: by its arguments before, by what came out afterwards.
export function costOf(schema, document, operation, variables, data = null) {
  const fragments = new Map(document.definitions.filter(one => one.kind === Kind.FRAGMENT_DEFINITION).map(one => [one.name.value, one]));
  const known = { schema, fragments, variables, measured: data !== null };
  if (operation.operation === 'mutation') {
    return MUTATION * operation.selectionSet.selections.filter(one => one.kind === Kind.FIELD).length;
  }
  return selectionCost(known, schema.getQueryType(), operation.selectionSet, data);
}

function selectionCost(known, type, selectionSet, data) {
  if (!selectionSet) return 0;
  let total = 0;
  const alternatives = new Map();
  for (const one of selectionSet.selections) {
    if (one.kind === Kind.FIELD) {
      total += fieldCost(known, type, one, data);
      continue;
    }
    const fragment = one.kind === Kind.FRAGMENT_SPREAD ? known.fragments.get(one.name.value) : one;
    const on = fragment.typeCondition ? known.schema.getType(fragment.typeCondition.name.value) : type;
    const cost = selectionCost(known, on, fragment.selectionSet, data);
    if (isAbstractType(type) && isObjectType(on)) alternatives.set(on.name, (alternatives.get(on.name) ?? 0) + cost);
    else total += cost;
  }
  return total + Math.max(0, ...alternatives.values());
}

function fieldCost(known, type, node, data) {
  const field = type?.getFields?.()[node.name.value];
  if (!field) return 0;
  const named = getNamedType(field.type);
  if (isLeafType(named)) return 0;
  const value = data?.[node.alias?.value ?? node.name.value];
  if (known.measured && value == null) return 0;
  if (named.name.endsWith('Connection') && named.getFields?.().pageInfo) return connectionCost(known, named, node, value);
  if (Array.isArray(value)) return value.reduce((sum, one) => sum + 1 + selectionCost(known, named, node.selectionSet, one), 0);
  const each = 1 + selectionCost(known, named, node.selectionSet, value);
  return node.name.value === 'nodes' ? each * listed(known, node) : each;
}

// How many ids nodes(ids: …) asks for.
function listed(known, node) {
  const given = node.arguments?.find(one => one.name.value === 'ids')?.value;
  const ids = given?.kind === Kind.VARIABLE ? known.variables?.[given.name.value] : given?.values;
  return ids?.length ?? 1;
}

function connectionCost(known, type, node, value) {
  const wrapper = node.selectionSet.selections.find(one => one.kind === Kind.FIELD && ['edges', 'nodes'].includes(one.name.value));
  if (!wrapper) return CONNECTION;
  const isEdges = wrapper.name.value === 'edges';
  const inner = isEdges ? wrapper.selectionSet.selections.find(one => one.kind === Kind.FIELD && one.name.value === 'node') : wrapper;
  const nodeType = getNamedType(type.getFields().nodes?.type ?? getNamedType(type.getFields().edges.type).getFields().node.type);
  const each = one => (inner ? 1 + (isLeafType(nodeType) ? 0 : selectionCost(known, nodeType, inner.selectionSet, one)) : 0);
  if (!known.measured) return CONNECTION + size(known, node) * each(null);
  const held = value[wrapper.alias?.value ?? wrapper.name.value] ?? [];
  return held.reduce((sum, one) => sum + each(isEdges ? one?.[inner?.alias?.value ?? 'node'] : one), CONNECTION);
}

function size(known, node) {
  for (const argument of node.arguments ?? []) {
    if (!['first', 'last'].includes(argument.name.value)) continue;
    const given = argument.value.kind === Kind.VARIABLE ? known.variables?.[argument.value.name.value] : Number(argument.value.value);
    if (given != null) return Math.max(0, given);
  }
  return 1;
}

function filled() {
  const { maximum, restoreRate } = db.settings.throttle;
  const at = performance.now() / 1000;
  db.bucket ??= { available: maximum, at };
  db.bucket.available = Math.min(maximum, db.bucket.available + (at - db.bucket.at) * restoreRate);
  db.bucket.at = at;
  return db.bucket;
}

export function throttleStatus() {
  const { maximum, restoreRate } = db.settings.throttle;
  return { maximumAvailable: maximum, currentlyAvailable: Math.floor(filled().available), restoreRate };
}

export function costExtension(requested, actual) {
  return { requestedQueryCost: requested, actualQueryCost: actual, throttleStatus: throttleStatus() };
}

// Takes the requested cost out of the bucket; the error when it is too dear or not there.
export function take(requested, { forced = false } = {}) {
  const { maxCost } = db.settings.throttle;
  if (requested > maxCost) {
    return new GraphQLError(`Query cost is ${requested}, which exceeds the single query max cost limit (${maxCost}).`, {
      extensions: { code: 'MAX_COST_EXCEEDED', cost: requested, maxCost, documentation: DOCUMENTATION },
    });
  }
  const bucket = filled();
  if (forced || bucket.available < requested) {
    return new GraphQLError('Throttled', { extensions: { code: 'THROTTLED', documentation: DOCUMENTATION } });
  }
  bucket.available -= requested;
  return null;
}

export function giveBack(cost) {
  if (cost > 0) filled().available += cost;
}
