// What the shop shows: collections, pages, metaobjects, and where things are published.
import { all, find, gid, now, put, remove, setMetafield, slug, touch } from '../state.mjs';
import { accept, error, isBlank, known, load, refuse } from './shared.mjs';
import { validity } from './metafields.mjs';

export const queries = {
  collection: ({ id }) => load('Collection', id),
  collections: () => all('Collection'),
  collectionByHandle: ({ handle }) => all('Collection').find(one => one.handle === handle) ?? null,
  collectionByIdentifier: ({ identifier }) => (identifier.id ? load('Collection', identifier.id) : all('Collection').find(one => one.handle === identifier.handle) ?? null),
  page: ({ id }) => load('Page', id),
  pages: () => all('Page'),
  metaobject: ({ id }) => load('Metaobject', id),
  metaobjectByHandle: ({ handle }) => metaobject(handle),
  metaobjects: ({ type }) => all('Metaobject').filter(one => one.type === type),
  metaobjectDefinition: ({ id }) => load('MetaobjectDefinition', id),
  metaobjectDefinitionByType: ({ type }) => definition(type),
  metaobjectDefinitions: () => all('MetaobjectDefinition'),
  publication: ({ id }) => load('Publication', id),
  publications: () => all('Publication'),
};

const job = () => put('Job', { done: true });

// --- collections

function collectionErrors(given, held) {
  const errors = [];
  if (held ? 'title' in given && isBlank(given.title) : isBlank(given.title)) errors.push(error(['title'], "Title can't be blank"));
  if (given.title?.length > 255) errors.push(error(['title'], 'Title is too long (maximum is 255 characters)'));
  const handle = given.handle && slug(given.handle);
  if (handle && all('Collection').some(one => one !== held && one.handle === handle)) errors.push(error(['handle'], 'Handle has already been taken'));
  const unknown = (given.products ?? []).filter(id => !known('Product', id));
  if (unknown.length) errors.push(error(['products'], 'Product does not exist'));
  return errors;
}

const selected = sources => (sources ?? []).flatMap(one => [one.source?.inclusion?.selections, one.condition?.inclusion?.selectionsToAdd]).flat().filter(Boolean).map(one => one.productId);
const deselected = sources => (sources ?? []).flatMap(one => one.condition?.inclusion?.selectionsToRemove ?? []).map(one => one.productId);

function changeCollection(collection, given) {
  const { id: _id, products, metafields, seo, handle, sources, sourcesToCreate, sourcesToUpdate, sourcesToDelete: _deleted, ruleSet, redirectNewHandle: _redirect, ...plain } = given;
  touch(collection, { ...plain, handle: handle && slug(handle), seo: seo && { ...collection.seo, ...seo }, ruleSet });
  const added = [...(products ?? []), ...selected(sources), ...selected(sourcesToCreate), ...selected(sourcesToUpdate)];
  const gone = new Set(deselected(sourcesToUpdate));
  collection.productIds = [...new Set([...collection.productIds, ...added])].filter(one => !gone.has(one));
  for (const one of metafields ?? []) setMetafield(collection.id, { ...one, namespace: one.namespace ?? '$app' });
  return collection;
}

function members(id, productIds, change) {
  const collection = known('Collection', id);
  if (!collection) return [null, error(['id'], 'Collection does not exist', 'COLLECTION_DOES_NOT_EXIST')];
  if (collection.ruleSet) return [null, error(['id'], "Can't manually add products to a smart collection", 'CANT_ADD_TO_SMART_COLLECTION')];
  collection.productIds = change(collection.productIds, productIds.filter(one => find(one)));
  return [touch(collection), null];
}

const joined = (held, ids) => [...new Set([...held, ...ids])];
const left = (held, ids) => held.filter(one => !ids.includes(one));

// --- pages

function pageErrors(given, held) {
  const errors = [];
  if (held ? 'title' in given && isBlank(given.title) : isBlank(given.title)) errors.push(error(['page', 'title'], "Title can't be blank", 'BLANK'));
  if (given.title?.length > 255) errors.push(error(['page', 'title'], 'Title is too long (maximum is 255 characters)', 'TOO_LONG'));
  if (given.body?.length > 524_287) errors.push(error(['page', 'body'], 'Body is too big (maximum is 512 KB)', 'TOO_BIG'));
  if (given.isPublished && given.publishDate && Date.parse(given.publishDate) > Date.parse(now())) {
    errors.push(error(['page'], 'A page cannot be published and have a publish date in the future', 'INVALID_PUBLISH_DATE'));
  }
  const handle = given.handle && slug(given.handle);
  if (handle && all('Page').some(one => one !== held && one.handle === handle)) errors.push(error(['page', 'handle'], 'Handle has already been taken', 'TAKEN'));
  return errors;
}

function changePage(page, { metafields, handle, publishDate, isPublished, redirectNewHandle: _redirect, ...plain }) {
  const shown = isPublished ?? page.isPublished ?? true;
  touch(page, { ...plain, handle: handle && slug(handle), isPublished: shown, publishedAt: shown ? publishDate ?? page.publishedAt ?? now() : null });
  for (const one of metafields ?? []) setMetafield(page.id, { ...one, namespace: one.namespace ?? '$app' });
  return page;
}

// --- metaobjects

const definition = type => all('MetaobjectDefinition').find(one => one.type === type) ?? null;
const metaobject = ({ type, handle }) => all('Metaobject').find(one => one.type === type && one.handle === handle) ?? null;

function valuesOf(given, values) {
  const fields = (given?.fields ?? []).map(({ key, value }) => [key, value]);
  return new Map([...fields, ...Object.entries(values ?? {}).map(([key, value]) => [key, typeof value === 'string' ? value : JSON.stringify(value)])]);
}

function metaobjectErrors(type, values, held) {
  const found = definition(type);
  if (!found) return [error(['handle', 'type'], `No metaobject definition exists for type "${type}"`, 'UNDEFINED_OBJECT_TYPE')];
  const kinds = new Map(found.fieldDefinitions.map(one => [one.key, one]));
  const errors = [];
  let index = 0;
  for (const [key, value] of values) {
    const kind = kinds.get(key);
    const at = ['metaobject', 'fields', String(index++)];
    if (!kind) errors.push(error(at, `Field definition "${key}" does not exist`, 'UNDEFINED_OBJECT_FIELD', { elementKey: key, elementIndex: null }));
    else if (value !== '' && !validity(kind.type.name, value)) errors.push(error([...at, 'value'], `Value is invalid for type ${kind.type.name}.`, 'INVALID_VALUE', { elementKey: key, elementIndex: null }));
  }
  for (const [key, kind] of kinds) {
    if (kind.required && !(values.get(key) ?? held?.values.get(key))) errors.push(error(['metaobject', 'fields'], `${kind.name || key} can't be blank`, 'OBJECT_FIELD_REQUIRED', { elementKey: key, elementIndex: null }));
  }
  return errors;
}

export const mutations = {
  collectionCreate({ collection: given, input }) {
    const wanted = given ?? input ?? {};
    const errors = collectionErrors(wanted, null);
    if (errors.length) return { collection: null, ...refuse(errors) };
    const made = put('Collection', { productIds: [], sortOrder: 'BEST_SELLING', descriptionHtml: '', seo: { title: null, description: null }, handle: free(slug(wanted.handle ?? wanted.title)), publications: {} });
    return accept({ collection: changeCollection(made, wanted) });
  },
  collectionUpdate({ collection: given, input }) {
    const wanted = given ?? input ?? {};
    const collection = known('Collection', wanted.id);
    if (!collection) return { collection: null, job: null, ...refuse(error(['id'], 'Collection does not exist')) };
    const errors = collectionErrors(wanted, collection);
    if (errors.length) return { collection, job: null, ...refuse(errors) };
    return accept({ collection: changeCollection(collection, wanted), job: null });
  },
  collectionDelete({ input }) {
    const collection = known('Collection', input.id);
    const shop = gid('Shop', 1);
    if (!collection) return { deletedCollectionId: null, shop, ...refuse(error(['id'], 'Collection does not exist')) };
    remove(collection);
    return accept({ deletedCollectionId: collection.id, shop });
  },
  collectionAddProducts({ id, productIds }) {
    const [collection, wrong] = members(id, productIds, joined);
    return wrong ? { collection: null, ...refuse(wrong) } : accept({ collection });
  },
  collectionAddProductsV2({ id, productIds }) {
    const [, wrong] = members(id, productIds, joined);
    return wrong ? { job: null, ...refuse(wrong) } : accept({ job: job() });
  },
  collectionReorderProducts({ id, moves }) {
    const collection = known('Collection', id);
    if (!collection) return { job: null, ...refuse(error(['id'], 'Collection does not exist', 'COLLECTION_NOT_FOUND')) };
    if (collection.sortOrder !== 'MANUAL') return { job: null, ...refuse(error(['id'], "Can't reorder products unless collection is manually sorted", 'MANUALLY_SORTED_COLLECTION')) };
    const unknown = moves.findIndex(one => !collection.productIds.includes(one.id));
    if (unknown >= 0) return { job: null, ...refuse(error(['moves', String(unknown), 'id'], 'Product is not in the collection', 'INVALID_MOVE')) };
    for (const { id: product, newPosition } of moves) {
      const others = collection.productIds.filter(one => one !== product);
      others.splice(Number(newPosition), 0, product);
      collection.productIds = others;
    }
    touch(collection);
    return accept({ job: job() });
  },
  collectionRemoveProducts({ id, productIds }) {
    const [, wrong] = members(id, productIds, left);
    return wrong ? { job: null, ...refuse(wrong) } : accept({ job: job() });
  },
  pageCreate({ page: given }) {
    const errors = pageErrors(given, null);
    if (errors.length) return { page: null, ...refuse(errors) };
    const made = put('Page', { body: '', templateSuffix: null, handle: slug(given.handle ?? given.title) });
    return accept({ page: changePage(made, given) });
  },
  pageUpdate({ id, page: given }) {
    const page = known('Page', id);
    if (!page) return { page: null, ...refuse(error(['id'], 'Page does not exist.', 'NOT_FOUND')) };
    const errors = pageErrors(given, page);
    return errors.length ? { page: null, ...refuse(errors) } : accept({ page: changePage(page, given) });
  },
  pageDelete({ id }) {
    const page = known('Page', id);
    if (!page) return { deletedPageId: null, ...refuse(error(['id'], 'Page does not exist.', 'NOT_FOUND')) };
    remove(page);
    return accept({ deletedPageId: id });
  },
  metaobjectDefinitionCreate({ definition: given }) {
    if (definition(given.type)) return { metaobjectDefinition: null, ...refuse(error(['definition', 'type'], 'Type has already been taken', 'TAKEN')) };
    const fieldDefinitions = (given.fieldDefinitions ?? []).map(one => ({ name: one.key, required: false, description: null, validations: [], ...one, type: { name: one.type, category: 'TEXT' } }));
    return accept({ metaobjectDefinition: put('MetaobjectDefinition', { name: given.name ?? given.type, type: given.type, fieldDefinitions, access: { admin: 'PUBLIC_READ_WRITE', storefront: given.access?.storefront ?? 'NONE' }, capabilitiesGiven: given.capabilities ?? {} }) });
  },
  metaobjectUpsert({ handle, metaobject: given, values }) {
    const held = metaobject(handle);
    const wanted = valuesOf(given, values);
    const errors = metaobjectErrors(handle.type, wanted, held);
    if (errors.length) return { metaobject: null, ...refuse(errors) };
    const made = held ?? put('Metaobject', { type: handle.type, handle: slug(handle.handle), values: new Map(), capabilities: { publishable: { status: 'DRAFT' } } });
    for (const [key, value] of wanted) made.values.set(key, value);
    if (given?.capabilities?.publishable) made.capabilities = { publishable: { status: given.capabilities.publishable.status } };
    return accept({ metaobject: touch(made, { handle: given?.handle && slug(given.handle) }) });
  },
  metaobjectDelete({ id }) {
    const found = known('Metaobject', id);
    if (!found) return { deletedId: null, ...refuse(error(['id'], 'Record not found', 'RECORD_NOT_FOUND')) };
    remove(found);
    return accept({ deletedId: id });
  },
  publishablePublish: ({ id, input }) => published(id, input, (held, one) => ({ ...held, [one.publicationId]: one.publishDate ?? now() })),
  publishableUnpublish: ({ id, input }) => published(id, input, (held, one) => Object.fromEntries(Object.entries(held).filter(([key]) => key !== one.publicationId))),
};

function free(handle) {
  let candidate = handle;
  for (let number = 1; all('Collection').some(one => one.handle === candidate); number++) candidate = `${handle}-${number}`;
  return candidate;
}

function published(id, input, change) {
  const thing = find(id);
  const shop = gid('Shop', 1);
  if (!thing || !['Product', 'Collection'].includes(thing.__typename)) return { publishable: null, shop, ...refuse(error(['id'], 'Resource does not exist')) };
  const unknown = input.findIndex(one => !known('Publication', one.publicationId));
  if (unknown >= 0) return { publishable: thing, shop, ...refuse(error(['input', String(unknown), 'publicationId'], 'Publication does not exist or is not publishable')) };
  thing.publications = input.reduce(change, thing.publications ?? {});
  const online = thing.publications[gid('Publication', 1)];
  touch(thing, { publishedAt: online ?? null });
  return accept({ publishable: thing, shop });
}

const places = (thing, { onlyPublished = true }) => Object.entries(thing.publications ?? {})
  .map(([publication, publishDate]) => ({ publication, publishDate, isPublished: Date.parse(publishDate) <= Date.parse(now()), publishable: thing }))
  .filter(one => one.isPublished || !onlyPublished);

const publishable = {
  publishedOnPublication: (thing, { publicationId }) => places(thing, {}).some(one => one.publication === publicationId),
  publishedOnCurrentPublication: thing => places(thing, {}).length > 0,
  resourcePublications: places,
  resourcePublicationsV2: places,
  resourcePublicationsCount: (thing, args) => places(thing, args).length,
  availablePublicationsCount: () => all('Publication').length,
  unpublishedPublications: thing => all('Publication').filter(one => !thing.publications?.[one.id]),
};

const readField = (found, key) => {
  const kind = definition(found.type)?.fieldDefinitions.find(one => one.key === key);
  if (!kind) return null;
  const value = found.values.get(key) ?? null;
  return { __typename: 'MetaobjectField', key, type: kind.type.name, value, definition: kind };
};

export const publishing = publishable;

export const fields = {
  Collection: {
    ...publishable,
    products: collection => collection.productIds.filter(id => find(id)),
    productsCount: collection => collection.productIds.length,
    hasProduct: (collection, { id }) => collection.productIds.includes(id),
    description: collection => collection.descriptionHtml.replace(/<[^>]*>/g, ' ').trim(),
    sources: collection => (collection.ruleSet ? [] : [{ __typename: 'CollectionConditionsSource', id: collection.id.replace('/Collection/', '/CollectionConditionsSource/'), title: collection.title, targetType: 'PRODUCTS', shareable: false, inclusion: { conditions: [], matchType: null, selections: collection.productIds.map(product => ({ product, variantIds: null })) } }]),
  },
  Metaobject: {
    field: (found, { key }) => readField(found, key),
    fields: found => (definition(found.type)?.fieldDefinitions ?? []).map(one => readField(found, one.key)),
    displayName: found => [...found.values.values()][0] ?? found.handle,
    definition: found => definition(found.type),
    values: found => Object.fromEntries(found.values),
  },
  Publication: { supportsFuturePublishing: () => true },
};
