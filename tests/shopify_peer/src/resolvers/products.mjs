// Products, variants and what is in stock.
import { all, find, gid, remove, seed, setMetafield, slug, touch } from '../state.mjs';
import { accept, cleanTags, error, isBlank, known, load, refuse, tagErrors } from './shared.mjs';

const MOST_MONEY = 10 ** 18;

export const queries = {
  product: ({ id }) => load('Product', id),
  products: () => all('Product'),
  productByHandle: ({ handle }) => all('Product').find(one => one.handle === handle) ?? null,
  productByIdentifier: ({ identifier }) => (identifier.id ? load('Product', identifier.id) : all('Product').find(one => one.handle === identifier.handle) ?? null),
  productVariant: ({ id }) => load('ProductVariant', id),
  productVariants: () => all('ProductVariant'),
  productsCount: () => all('Product').length,
  inventoryItem: ({ id }) => load('InventoryItem', id),
  inventoryItems: () => all('InventoryItem'),
  inventoryLevel: ({ id }) => all('InventoryLevel').find(one => one.id === id) ?? null,
  location: ({ id }) => load('Location', id ?? gid('Location', 1)),
  locations: () => all('Location'),
};

function productErrors(given) {
  const errors = [];
  if ('title' in given && isBlank(given.title)) errors.push(error(['title'], "Title can't be blank"));
  if (given.title?.length > 255) errors.push(error(['title'], 'Title is too long (maximum is 255 characters)'));
  if (given.seo?.title?.length > 70) errors.push(error(['seo', 'title'], 'Title is too long (maximum is 70 characters)'));
  if (given.seo?.description?.length > 320) errors.push(error(['seo', 'description'], 'Description is too long (maximum is 320 characters)'));
  if (given.handle && all('Product').some(one => one.handle === slug(given.handle) && one.id !== given.id)) {
    errors.push(error(['handle'], `Handle '${given.handle}' already in use. Please provide a new handle.`));
  }
  if (given.tags) errors.push(...tagErrors(cleanTags(given.tags), ['tags']));
  return errors;
}

function changeProduct(product, { id: _id, tags, seo, metafields, handle, ...plain }) {
  touch(product, { ...plain, handle: handle ? slug(handle) : undefined, tags: tags && cleanTags(tags), seo: seo && { ...product.seo, ...seo } });
  for (const one of metafields ?? []) setMetafield(product.id, { ...one, namespace: one.namespace ?? '$app' });
}

function priceErrors(one, index) {
  const errors = [];
  for (const name of ['price', 'compareAtPrice']) {
    if (one[name] == null) continue;
    const amount = Number(one[name]);
    const said = name === 'price' ? 'Price' : 'Compare at price';
    if (amount < 0) errors.push(error(['variants', String(index), name], `${said} must be greater than or equal to 0`, name === 'price' ? 'GREATER_THAN_OR_EQUAL_TO' : 'INVALID_INPUT'));
    if (amount >= MOST_MONEY) errors.push(error(['variants', String(index), name], `${said} must be less than 1000000000000000000`, 'INVALID_INPUT'));
  }
  return errors;
}

function variantErrors(one, index, product) {
  if (!one.id) return [error(['variants', String(index), 'id'], 'Product variant is missing ID attribute', 'PRODUCT_VARIANT_ID_MISSING')];
  const variant = known('ProductVariant', one.id);
  if (!variant || variant.product !== product.id) {
    return [error(['variants', String(index), 'id'], 'Product variant does not exist', 'PRODUCT_VARIANT_DOES_NOT_EXIST')];
  }
  const errors = priceErrors(one, index);
  if (one.inventoryQuantities) {
    errors.push(error(['variants', String(index), 'inventoryQuantities'], 'Inventory quantities can only be provided during create. To update inventory for existing variants, use inventoryAdjustQuantities.', 'NO_INVENTORY_QUANTITIES_ON_VARIANTS_UPDATE'));
  }
  return errors;
}

const twoPlaces = amount => (amount == null ? amount : Number(amount).toFixed(2));

function changeVariant({ id, price, compareAtPrice, inventoryItem, metafields, ...plain }) {
  const variant = find(id);
  touch(variant, { ...plain, price: price == null ? undefined : twoPlaces(price), compareAtPrice: twoPlaces(compareAtPrice) });
  if (inventoryItem) {
    touch(find(variant.inventoryItem), inventoryItem);
    if (inventoryItem.sku !== undefined) variant.sku = inventoryItem.sku;
  }
  for (const one of metafields ?? []) setMetafield(id, { ...one, namespace: one.namespace ?? '$app' });
  return variant;
}

export const mutations = {
  productCreate({ product, input }) {
    const given = { ...(product ?? input) };
    const errors = productErrors({ title: '', ...given });
    if (errors.length) return { product: null, ...refuse(errors) };
    return accept({ product: seed('Product', { ...given, tags: cleanTags(given.tags ?? []) }) });
  },
  productUpdate({ product: given, input, identifier }) {
    const wanted = given ?? input ?? {};
    const product = known('Product', wanted.id ?? identifier?.id);
    if (!product) return { product: null, ...refuse(error(['id'], 'Product does not exist')) };
    const errors = productErrors({ ...wanted, id: product.id });
    if (errors.length) return { product, ...refuse(errors) };
    changeProduct(product, wanted);
    for (const id of wanted.collectionsToJoin ?? []) find(id)?.productIds?.push(product.id);
    for (const id of wanted.collectionsToLeave ?? []) {
      const collection = find(id);
      if (collection) collection.productIds = collection.productIds.filter(one => one !== product.id);
    }
    return accept({ product });
  },
  productDelete({ input }) {
    const product = known('Product', input.id);
    if (!product) return { deletedProductId: null, ...refuse(error(['id'], 'Product does not exist')) };
    for (const variant of all('ProductVariant').filter(one => one.product === product.id)) remove(variant);
    remove(product);
    return accept({ deletedProductId: product.id });
  },
  productVariantsBulkUpdate({ productId, variants, allowPartialUpdates }) {
    const product = known('Product', productId);
    if (!product) return { product: null, productVariants: null, ...refuse(error(['productId'], 'Product does not exist', 'PRODUCT_DOES_NOT_EXIST')) };
    const errors = variants.map((one, index) => variantErrors(one, index, product));
    const good = variants.filter((_, index) => errors[index].length === 0);
    if (good.length < variants.length && !allowPartialUpdates) return { product, productVariants: null, ...refuse(errors.flat()) };
    const productVariants = good.map(changeVariant);
    touch(product);
    return { product, productVariants, ...refuse(errors.flat()) };
  },
};

const variantsOf = product => all('ProductVariant').filter(one => one.product === product.id).sort((a, b) => a.position - b.position);
const range = product => {
  const prices = variantsOf(product).map(one => one.price).sort((a, b) => a - b);
  return { minVariantPrice: prices[0] ?? '0.00', maxVariantPrice: prices.at(-1) ?? '0.00' };
};

export const fields = {
  Product: {
    variants: variantsOf,
    variantsCount: product => variantsOf(product).length,
    totalInventory: product => variantsOf(product).reduce((sum, one) => sum + (one.inventoryQuantity ?? 0), 0),
    description: product => product.descriptionHtml.replace(/<[^>]*>/g, ' ').replace(/\s+/g, ' ').trim(),
    collections: product => all('Collection').filter(one => one.productIds?.includes(product.id)),
    inCollection: (product, { id }) => find(id)?.productIds?.includes(product.id) ?? false,
    hasOnlyDefaultVariant: product => variantsOf(product).length === 1,
    priceRangeV2: range,
    onlineStoreUrl: product => (product.publishedAt ? `https://peer.example/products/${product.handle}` : null),
  },
  ProductVariant: {
    displayName: one => `${find(one.product)?.title} - ${one.title}`,
    availableForSale: one => one.inventoryPolicy === 'CONTINUE' || one.inventoryQuantity > 0,
    sellableOnlineQuantity: one => one.inventoryQuantity ?? 0,
  },
  InventoryItem: {
    inventoryLevels: item => item.levels ?? [],
    inventoryLevel: (item, { locationId }) => (item.levels ?? []).find(one => one.location === locationId) ?? null,
    variants: item => [item.variant],
    locationsCount: item => item.levels?.length ?? 0,
  },
  Location: { inventoryLevels: location => all('InventoryLevel').filter(one => one.location === location.id) },
  InventoryLevel: {
    quantities: (level, { names }) => names.map(name => ({ id: `${level.id}&name=${name}`, name, quantity: name === 'available' || name === 'on_hand' ? level.available ?? 0 : 0, updatedAt: level.updatedAt })),
  },
};

