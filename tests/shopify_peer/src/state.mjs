// The shop as it is: every object by its global id, metafields, tokens, and the settings that a test may change.

export const ALL_SCOPES = [
  'write_products', 'write_inventory', 'read_locations', 'write_customers', 'write_orders', 'read_all_orders',
  'write_discounts', 'write_draft_orders', 'write_content', 'write_online_store_pages', 'write_metaobjects',
  'read_metaobject_definitions', 'write_publications', 'read_fulfillments', 'read_checkouts', 'read_customer_merge',
  'write_pixels', 'read_customer_events', 'write_price_rules', 'read_shipping', 'read_translations', 'read_themes',
];

export const TOKEN = 'shpat_peer';
export const APP = { clientId: 'peer-client', clientSecret: 'peer-secret' };

const DEFAULTS = () => ({
  now: null, // ISO 8601: the clock stands there; null: it is the machine's
  version: '2026-07',
  throttle: { maximum: 2000, restoreRate: 100, maxCost: 1000 },
  bulk: { polls: 1, limit: 5, lines: {}, fail: null, partial: false },
  redeem: { polls: 1 },
  oauth: { expiresIn: 3600, refreshExpiresIn: 90 * 86400, retainPrevious: true, scopes: null },
  app: { ...APP },
});

export const db = {};

export function reset() {
  db.objects = new Map(); // type -> (id -> object)
  db.metafields = new Map(); // "owner|namespace|key" -> metafield
  db.tokens = new Map(); // token -> {scopes, expiresAt, revoked}
  db.refreshTokens = new Map();
  db.codes = new Map(); // authorization code -> scopes
  db.calls = [];
  db.faults = [];
  db.settings = DEFAULTS();
  db.bucket = null;
  db.nextId = 1_000_001;
  db.bulk = new Map();
  db.sent = []; // invoices
  db.tokens.set(TOKEN, { scopes: [...ALL_SCOPES], expiresAt: null, revoked: false });
  put('Shop', {
    id: gid('Shop', 1), name: 'Peer shop', email: 'owner@peer.example', contactEmail: 'owner@peer.example',
    currencyCode: 'USD', ianaTimezone: 'Etc/UTC', timezoneOffset: '+0000', myshopifyDomain: 'peer.myshopify.com',
    url: 'https://peer.example', primaryDomain: { __typename: 'Domain', id: gid('Domain', 1), host: 'peer.example', url: 'https://peer.example' },
    enabledPresentmentCurrencies: ['USD'], createdAt: '2024-01-01T00:00:00Z',
  });
  put('Location', { id: gid('Location', 1), name: 'Warehouse', isActive: true });
  put('App', { id: gid('App', 1), title: 'Operation Agent', handle: 'operation-agent', webhookApiVersion: db.settings.version });
  publication(1, 'Online Store');
  publication(2, 'Point of Sale');
}

function publication(number, name) {
  const app = put('App', { id: gid('App', 100 + number), title: name, handle: slug(name) });
  const catalog = { __typename: 'AppCatalog', id: gid('AppCatalog', number), title: name, status: 'ACTIVE', apps: [app.id] };
  put('Publication', { id: gid('Publication', number), name, autoPublish: number === 1, catalog });
}

export const gid = (type, number) => `gid://shopify/${type}/${number}`;
export const numberOf = id => id.split('/').pop().split('?')[0];
export const typeOf = id => /^gid:\/\/shopify\/([A-Za-z]+)\/[^/\s]+$/.exec(id)?.[1] ?? null;
export const newId = type => gid(type, db.nextId++);

export function milliseconds() {
  return db.settings.now ? Date.parse(db.settings.now) : Date.now();
}

export const now = () => new Date(milliseconds()).toISOString().replace(/\.\d+Z$/, 'Z');

export function all(type) {
  return [...(db.objects.get(type)?.values() ?? [])];
}

export const find = id => (typeof id === 'string' ? db.objects.get(typeOf(id))?.get(id) ?? null : null);

export function put(type, object) {
  const at = now();
  const whole = { __typename: type, createdAt: at, updatedAt: object.createdAt ?? at, ...object, __typename: type };
  whole.id = String(whole.id ?? newId(type));
  if (!whole.id.startsWith('gid://')) whole.id = gid(type, whole.id);
  if (!db.objects.has(type)) db.objects.set(type, new Map());
  db.objects.get(type).set(whole.id, whole);
  return whole;
}

export function remove(object) {
  return db.objects.get(object.__typename)?.delete(object.id) ?? false;
}

export function touch(object, changes = {}) {
  for (const [name, value] of Object.entries(changes)) if (value !== undefined) object[name] = value;
  object.updatedAt = now();
  return object;
}

// What a test puts there, in the words of GraphQL: {Product: [{id, title, variants: [...]}], Order: [...], ...}
export function seed(type, given) {
  const known = given.id !== undefined && find(String(given.id).startsWith('gid://') ? given.id : gid(type, given.id));
  if (known) return Object.assign(known, given, { id: known.id });
  if (type === 'Product') return seedProduct(given);
  if (type === 'ProductVariant') return seedVariant(given, given.product);
  if (type === 'Order') return seedOrder(given);
  if (type === 'Customer') return put(type, { tags: [], state: 'ENABLED', locale: 'en', ...given });
  if (type === 'DraftOrder') return put(type, { status: 'OPEN', tags: [], lineItems: [], name: `#D${all(type).length + 1}`, ...given });
  if (type === 'Collection') return put(type, { productIds: [], handle: slug(given.title ?? 'untitled'), descriptionHtml: '', sortOrder: 'BEST_SELLING', seo: { title: null, description: null }, publications: {}, ...given });
  if (type === 'Page') return put(type, { body: '', handle: slug(given.title ?? 'untitled'), isPublished: true, ...given });
  if (type === 'Metaobject') return put(type, { capabilities: { publishable: { status: 'ACTIVE' } }, ...given, values: new Map(Object.entries(given.values ?? {})) });
  if (type === 'DiscountCodeNode') return seedDiscount(given);
  if (type === 'Metafield') return setMetafield(given.ownerId, given);
  return put(type, given);
}

function seedProduct({ variants, ...given }) {
  const product = put('Product', {
    title: 'Untitled', handle: slug(given.title ?? 'untitled'), status: 'ACTIVE', tags: [], vendor: '', productType: '',
    descriptionHtml: '', seo: { title: null, description: null }, publications: {}, ...given,
  });
  for (const variant of variants ?? [{ title: 'Default Title' }]) seedVariant(variant, product.id);
  return product;
}

function seedVariant({ levels, ...given }, productId) {
  const position = all('ProductVariant').filter(one => one.product === productId).length + 1;
  const variant = put('ProductVariant', {
    title: 'Default Title', price: '10.00', compareAtPrice: null, sku: null, barcode: null, position,
    inventoryPolicy: 'DENY', inventoryQuantity: 0, taxable: true, ...given, product: productId,
  });
  const item = put('InventoryItem', { id: given.inventoryItem ?? newId('InventoryItem'), sku: variant.sku, tracked: true, variant: variant.id, unitCost: given.unitCost ?? null });
  variant.inventoryItem = item.id;
  for (const level of levels ?? [{ location: gid('Location', 1), available: variant.inventoryQuantity }]) {
    const id = gid('InventoryLevel', `${numberOf(level.location)}?inventory_item_id=${numberOf(item.id)}`);
    const held = put('InventoryLevel', { ...level, id, item: item.id });
    item.levels = [...(item.levels ?? []), held];
  }
  return variant;
}

function seedDiscount({ discount, ...given }) {
  const at = now();
  const codes = (discount.codes ?? []).map(one => ({ __typename: 'DiscountRedeemCode', id: newId('DiscountRedeemCode'), asyncUsageCount: 0, ...(typeof one === 'string' ? { code: one } : one) }));
  const whole = { __typename: 'DiscountCodeBasic', title: codes[0]?.code ?? '', createdAt: at, updatedAt: at, startsAt: at, endsAt: null, tags: [], ...discount, codes };
  return put('DiscountCodeNode', { ...given, discount: whole });
}

function seedOrder(given) {
  const order = put('Order', {
    name: `#${1000 + all('Order').length + 1}`, currencyCode: find(gid('Shop', 1)).currencyCode, test: false, tags: [],
    displayFinancialStatus: 'PAID', displayFulfillmentStatus: 'UNFULFILLED', refunds: [], discountCodes: [],
    processedAt: given.createdAt, lineItems: [], totalDiscountsSet: '0.00', totalTaxSet: '0.00', ...given,
  });
  order.presentmentCurrencyCode ??= order.currencyCode;
  order.fullyPaid ??= ['PAID', 'REFUNDED', 'PARTIALLY_REFUNDED'].includes(order.displayFinancialStatus);
  order.lineItems = order.lineItems.map(line => ({
    id: newId('LineItem'), quantity: 1, currentQuantity: line.quantity ?? 1, name: line.title ?? '', title: '', ...line, __typename: 'LineItem',
  }));
  order.refunds = order.refunds.map(refund => ({
    id: newId('Refund'), createdAt: order.updatedAt, processedAt: order.updatedAt, updatedAt: order.updatedAt,
    ...refund, order: order.id, __typename: 'Refund',
  }));
  return order;
}

export const slug = text => text.toLowerCase().normalize('NFKC').replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-|-$/g, '') || 'untitled';

export function setMetafield(ownerId, { namespace, key, value, type }) {
  const place = `${ownerId}|${namespace}|${key}`;
  const at = now();
  const known = db.metafields.get(place);
  const made = {
    createdAt: known?.createdAt ?? at, id: known?.id ?? newId('Metafield'), __typename: 'Metafield', namespace, key,
    value, type: type ?? known?.type ?? 'single_line_text_field', updatedAt: at, owner: ownerId, ownerId,
    ownerType: OWNERS[typeOf(ownerId)] ?? 'SHOP', compareDigest: digest(value), sizeInBytes: Buffer.byteLength(value),
  };
  db.metafields.set(place, made);
  return made;
}

export const metafieldsOf = ownerId => [...db.metafields.values()].filter(one => one.ownerId === ownerId);

const OWNERS = {
  Customer: 'CUSTOMER', Product: 'PRODUCT', ProductVariant: 'PRODUCTVARIANT', Order: 'ORDER', Collection: 'COLLECTION',
  Page: 'PAGE', Shop: 'SHOP', DraftOrder: 'DRAFTORDER', DiscountCodeNode: 'DISCOUNT', AppInstallation: 'API_PERMISSION',
};

export function digest(value) {
  let hash = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(value)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash.toString(16).padStart(16, '0');
}

reset();
