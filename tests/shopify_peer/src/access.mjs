// Who may ask for what: tokens, and the scopes of fields and types.
import { GraphQLError } from 'graphql';
import { db, milliseconds } from './state.mjs';

const READ_TYPES = {
  Product: 'read_products', ProductVariant: 'read_products', Collection: 'read_products',
  InventoryItem: 'read_inventory', InventoryLevel: 'read_inventory', Location: 'read_locations',
  Customer: 'read_customers', Order: 'read_orders', Refund: 'read_orders', AbandonedCheckout: 'read_orders',
  DraftOrder: 'read_draft_orders', DiscountCodeNode: 'read_discounts', DiscountNode: 'read_discounts',
  DiscountRedeemCodeBulkCreation: 'read_discounts', Page: 'read_content', Metaobject: 'read_metaobjects',
  MetaobjectDefinition: 'read_metaobject_definitions', Publication: 'read_publications', Segment: 'read_customers',
};

const ALSO = { // any of these will do instead
  read_content: ['read_online_store_pages'], read_locations: ['read_inventory'], read_orders: ['read_all_orders'],
};

const MUTATIONS = [
  [/^product|^collection/, 'write_products'], [/^inventory/, 'write_inventory'], [/^customer/, 'write_customers'],
  [/^discount/, 'write_discounts'], [/^draftOrder/, 'write_draft_orders'], [/^page/, 'write_content'],
  [/^metaobject(?!Definition)/, 'write_metaobjects'], [/^metaobjectDefinition/, 'write_metaobject_definitions'],
  [/^publishable/, 'write_publications'], [/^webPixel/, 'write_pixels'], [/^order/, 'write_orders'],
];

const OWNERS = { // of tags and metafields
  Customer: 'write_customers', Product: 'write_products', ProductVariant: 'write_products', Order: 'write_orders',
  Collection: 'write_products', DraftOrder: 'write_draft_orders', Page: 'write_content', DiscountCodeNode: 'write_discounts',
};

export function tokenOf(request) {
  const given = request.headers['x-shopify-access-token'];
  const token = given ? db.tokens.get(given) : undefined;
  if (!token || token.revoked) return null;
  if (token.expiresAt !== null && token.expiresAt <= milliseconds()) return null;
  return token;
}

export function has(scopes, wanted) {
  const held = new Set(scopes);
  const fits = scope => held.has(scope) || (scope.startsWith('read_') && held.has(scope.replace('read_', 'write_')));
  return [wanted, ...(ALSO[wanted] ?? []), ...(ALSO[wanted.replace('write_', 'read_')] ?? []).map(one => wanted.startsWith('write_') ? one.replace('read_', 'write_') : one)].some(fits);
}

export function denied(field, scope) {
  const required = `\`${scope}\` access scope.`;
  return new GraphQLError(`Access denied for ${field} field. Required access: ${required}`, {
    extensions: { code: 'ACCESS_DENIED', documentation: 'https://shopify.dev/api/usage/access-scopes', requiredAccess: required },
  });
}

export function requireType(typeName, fieldName, context) {
  const scope = READ_TYPES[typeName];
  if (scope && !has(context.scopes, scope)) throw denied(fieldName, scope);
}

export function requireMutation(fieldName, context) {
  const scope = MUTATIONS.find(([pattern]) => pattern.test(fieldName))?.[1];
  if (scope && !has(context.scopes, scope)) throw denied(fieldName, scope);
}

export function requireOwner(typeName, fieldName, context) {
  const scope = OWNERS[typeName];
  if (scope && !has(context.scopes, scope)) throw denied(fieldName, scope);
}

// A write scope contains the read scope; Shopify lists both.
export const listed = scopes => [...new Set(scopes.flatMap(one => (one.startsWith('write_') ? [one, one.replace('write_', 'read_')] : [one])))];
