// Metafields and tags, of whatever has them.
import { requireOwner } from '../access.mjs';
import { db, digest, find, setMetafield, touch } from '../state.mjs';
import { accept, cleanTags, error, refuse, tagErrors } from './shared.mjs';

const MOST = 25;
const isJson = value => {
  try {
    JSON.parse(value);
    return true;
  } catch {
    return false;
  }
};
const isListOf = test => value => isJson(value) && Array.isArray(JSON.parse(value)) && JSON.parse(value).every(one => test(typeof one === 'string' ? one : JSON.stringify(one)));
const reference = kind => value => new RegExp(`^gid://shopify/${kind}/\\d+$`).test(value);
const inJson = test => value => isJson(value) && test(JSON.parse(value));

export const VALID = {
  single_line_text_field: value => !/[\r\n]/.test(value),
  multi_line_text_field: () => true,
  rich_text_field: isJson,
  json: isJson,
  boolean: value => ['true', 'false'].includes(value),
  number_integer: value => /^-?\d{1,16}$/.test(value) && Number.isSafeInteger(Number(value)),
  number_decimal: value => /^-?\d{1,13}(\.\d{1,9})?$/.test(value),
  date: value => /^\d{4}-\d{2}-\d{2}$/.test(value) && !Number.isNaN(Date.parse(value)),
  date_time: value => /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}/.test(value) && !Number.isNaN(Date.parse(value)),
  url: value => /^(https?|mailto|sms|tel):/.test(value),
  color: value => /^#[0-9a-fA-F]{6}$/.test(value),
  id: value => value.length <= 255,
  money: inJson(one => typeof one?.amount === 'string' && typeof one?.currency_code === 'string'),
  rating: inJson(one => one?.value !== undefined && one?.scale_min !== undefined && one?.scale_max !== undefined),
  product_reference: reference('Product'),
  variant_reference: reference('ProductVariant'),
  collection_reference: reference('Collection'),
  page_reference: reference('Page'),
  metaobject_reference: reference('Metaobject'),
  customer_reference: reference('Customer'),
  file_reference: reference('(MediaImage|GenericFile|Video)'),
};

export function validity(type, value) {
  if (type.startsWith('list.')) {
    const inner = VALID[type.slice(5)];
    return inner ? isListOf(inner)(value) : undefined;
  }
  return VALID[type]?.(value);
}

const namespaceOf = given => (given == null || given === '$app' ? '$app' : given);

function metafieldErrors(one, index) {
  const at = name => ['metafields', String(index), name];
  const more = { elementIndex: null };
  if (!find(one.ownerId)) return [error(at('ownerId'), 'Owner does not exist.', 'INVALID', more)];
  const errors = [];
  if (one.key.length < 2) errors.push(error(at('key'), 'Key is too short (minimum is 2 characters)', 'TOO_SHORT', more));
  if (one.key.length > 64) errors.push(error(at('key'), 'Key is too long (maximum is 64 characters)', 'TOO_LONG', more));
  if (!/^[a-zA-Z0-9_-]*$/.test(one.key)) errors.push(error(at('key'), 'Key contains one or more invalid characters.', 'INVALID', more));
  const namespace = namespaceOf(one.namespace);
  if (namespace !== '$app' && (namespace.length < 3 || namespace.length > 255)) {
    errors.push(error(at('namespace'), 'Namespace is too short (minimum is 3 characters)', 'TOO_SHORT', more));
  }
  const held = db.metafields.get(`${one.ownerId}|${namespace}|${one.key}`);
  const type = one.type ?? held?.type;
  if (!type) errors.push(error(at('type'), "Type can't be blank", 'BLANK', more));
  else if (held && one.type && held.type !== one.type) errors.push(error(at('type'), `Type '${one.type}' must be consistent with the definition's type: '${held.type}'.`, 'INVALID_TYPE', more));
  else if (validity(type, one.value) === undefined) errors.push(error(at('type'), `Type '${type}' is not a valid type.`, 'INCLUSION', more));
  else if (one.value === '') errors.push(error(at('value'), "Value can't be blank.", 'BLANK', more));
  else if (!validity(type, one.value)) errors.push(error(at('value'), `Value is invalid for type ${type}.`, 'INVALID_VALUE', more));
  if (one.compareDigest !== undefined && (one.compareDigest === null ? held : held?.compareDigest !== one.compareDigest)) {
    errors.push(error(at('compareDigest'), 'The resource has been updated since it was loaded. Try again with an updated `compareDigest` value.', 'STALE_OBJECT', more));
  }
  return errors;
}

export const mutations = {
  metafieldsSet({ metafields }, context) {
    if (metafields.length > MOST) {
      return { metafields: null, ...refuse(error(['metafields'], `Exceeded the maximum metafields input limit of ${MOST}.`, 'LESS_THAN_OR_EQUAL_TO')) };
    }
    for (const one of metafields) requireOwner(find(one.ownerId)?.__typename, 'metafieldsSet', context);
    const errors = metafields.flatMap(metafieldErrors);
    if (errors.length) return { metafields: null, ...refuse(errors) };
    const made = metafields.map(one => setMetafield(one.ownerId, { ...one, namespace: namespaceOf(one.namespace) }));
    for (const id of new Set(metafields.map(one => one.ownerId))) touch(find(id));
    return accept({ metafields: made });
  },
  metafieldsDelete({ metafields }, context) {
    for (const one of metafields) requireOwner(find(one.ownerId)?.__typename, 'metafieldsDelete', context);
    const unknown = metafields.findIndex(one => !find(one.ownerId));
    if (unknown >= 0) return { deletedMetafields: null, ...refuse(error(['metafields', String(unknown), 'ownerId'], 'Owner does not exist.')) };
    const deleted = metafields.map(({ ownerId, namespace, key }) => (db.metafields.delete(`${ownerId}|${namespaceOf(namespace)}|${key}`) ? { ownerId, namespace, key } : null));
    return accept({ deletedMetafields: deleted });
  },
  tagsAdd: ({ id, tags }, context) => tagged(id, context, 'tagsAdd', held => cleanTags([...held, ...tags])),
  tagsRemove({ id, tags }, context) {
    const gone = new Set(cleanTags(tags).map(one => one.toLowerCase()));
    return tagged(id, context, 'tagsRemove', held => held.filter(one => !gone.has(one.toLowerCase())));
  },
};

function tagged(id, context, field, change) {
  const node = find(id);
  requireOwner(node?.__typename, field, context);
  if (!node || !Array.isArray(node.tags)) return { node: null, ...refuse(error(['id'], `${id.split('/')[3] ?? 'Node'} does not exist`)) };
  const tags = change(node.tags);
  const errors = tagErrors(tags, ['tags']);
  if (errors.length) return { node: null, ...refuse(errors) };
  if (tags.join('\n') !== node.tags.join('\n')) touch(node, { tags });
  return accept({ node });
}

export const fields = {
  Metafield: {
    jsonValue: one => (isJson(one.value) && one.type !== 'single_line_text_field' ? JSON.parse(one.value) : one.value),
    compareDigest: one => digest(one.value),
  },
};
