// What Shopify refuses about a code discount.
import { find } from '../state.mjs';
import { error, isBlank, tagErrors } from './shared.mjs';

export function discountErrors(given, argument, { byCode, node = null }) {
  const at = (...names) => [argument, ...names];
  const held = node?.discount;
  return [
    ...codeErrors(given, at, byCode, node), ...dateErrors(given, at, held), ...valueErrors(given, argument, at, held),
    ...minimumErrors(given.minimumRequirement, at), ...itemErrors(given.customerGets?.items, at('customerGets', 'items')),
    ...itemErrors(given.customerBuys?.items, at('customerBuys', 'items')), ...buyerErrors(given, at, held),
    ...limitErrors(given, at), ...tagErrors(given.tags ?? [], at('tags')),
  ];
}

function codeErrors(given, at, byCode, node) {
  const errors = [];
  if (!node && isBlank(given.title)) errors.push(error(at('title'), "Title can't be blank", 'BLANK'));
  if (given.title?.length > 255) errors.push(error(at('title'), 'Title is too long (maximum is 255 characters)', 'TOO_LONG'));
  if (node ? 'code' in given && isBlank(given.code) : isBlank(given.code)) errors.push(error(at('code'), "Code can't be blank", 'BLANK'));
  if (given.code?.length > 255) errors.push(error(at('code'), 'Code is too long (maximum is 255 characters)', 'TOO_LONG'));
  if (/[\r\n]/.test(given.code ?? '')) errors.push(error(at('code'), 'Code contains invalid characters', 'INVALID'));
  const holder = given.code ? byCode(given.code) : null;
  if (holder && holder !== node) errors.push(error(at('code'), 'Code must be unique. Please try a different code.', 'TAKEN'));
  return errors;
}

function dateErrors(given, at, held) {
  const starts = given.startsAt ?? held?.startsAt;
  const ends = given.endsAt === undefined ? held?.endsAt : given.endsAt;
  if (!starts) return [error(at('startsAt'), "Starts at can't be blank", 'BLANK')];
  if (ends && Date.parse(ends) <= Date.parse(starts)) return [error(at('endsAt'), 'Ends at needs to be after starts_at', 'END_DATE_BEFORE_START_DATE')];
  return [];
}

function valueErrors(given, argument, at, held) {
  if (argument === 'freeShippingCodeDiscount') {
    if (!given.destination && !held) return [error(at('destination'), "Destination can't be blank", 'BLANK')];
    return Number(given.maximumShippingPrice ?? 0) < 0 ? [error(at('maximumShippingPrice'), 'Maximum shipping price must be greater than or equal to 0', 'GREATER_THAN_OR_EQUAL_TO')] : [];
  }
  const value = given.customerGets?.value;
  if (!value) return held ? [] : [error(at('customerGets', 'value'), "Value can't be blank", 'BLANK')];
  const path = at('customerGets', 'value');
  const forms = ['percentage', 'discountAmount', 'discountOnQuantity'].filter(name => value[name] != null);
  if (forms.length > 1) return [error(path, 'Only one of percentage, discountAmount or discountOnQuantity can be provided', 'TOO_MANY_ARGUMENTS')];
  if (forms.length === 0) return [error(path, "Value can't be blank", 'BLANK')];
  if (argument === 'bxgyCodeDiscount') return quantityErrors(value.discountOnQuantity, path);
  if (value.discountOnQuantity) return [error([...path, 'discountOnQuantity'], 'discountOnQuantity field is only permitted with bxgy discounts.', 'INVALID')];
  if (value.percentage != null) return percentageErrors(value.percentage, [...path, 'percentage']);
  const amount = value.discountAmount.amount;
  return amount == null || Number(amount) <= 0 ? [error([...path, 'discountAmount', 'amount'], 'Value must be less than 0', 'LESS_THAN')] : [];
}

function percentageErrors(percentage, path) {
  return percentage > 0 && percentage <= 1 ? [] : [error(path, 'Value must be between 0.0 and 1.0', 'VALUE_OUTSIDE_RANGE')];
}

function quantityErrors(given, path) {
  if (!given) return [error(path, 'Customer gets value must be a quantity with an effect', 'MISSING_ARGUMENT')];
  const errors = [];
  if (given.quantity == null || Number(given.quantity) < 1) errors.push(error([...path, 'discountOnQuantity', 'quantity'], "Quantity can't be blank", 'BLANK'));
  if (given.effect?.percentage != null) errors.push(...percentageErrors(given.effect.percentage, [...path, 'discountOnQuantity', 'effect', 'percentage']));
  else if (given.effect?.amount == null) errors.push(error([...path, 'discountOnQuantity', 'effect'], "Effect can't be blank", 'BLANK'));
  return errors;
}

function minimumErrors(given, at) {
  if (!given) return [];
  const quantity = given.quantity?.greaterThanOrEqualToQuantity;
  const subtotal = given.subtotal?.greaterThanOrEqualToSubtotal;
  if (quantity != null && subtotal != null) return [error(at('minimumRequirement'), 'Minimum subtotal and quantity cannot both be present', 'MINIMUM_SUBTOTAL_AND_QUANTITY_RANGE_BOTH_PRESENT')];
  if (subtotal != null && Number(subtotal) <= 0) return [error(at('minimumRequirement', 'subtotal', 'greaterThanOrEqualToSubtotal'), 'Subtotal must be greater than 0', 'GREATER_THAN')];
  return [];
}

function itemErrors(items, path) {
  if (!items) return [];
  const ids = [...(items.products?.productsToAdd ?? []), ...(items.products?.productVariantsToAdd ?? []), ...(items.collections?.add ?? [])];
  if (!items.all && ids.length === 0 && !items.products && !items.collections) return [error(path, 'Items in must be selected', 'APPLIES_ON_NOTHING')];
  return ids.filter(id => !find(id)).map(id => error(path, `${id.split('/')[3]} with id: ${id.split('/').pop()} is invalid`, 'INVALID'));
}

function buyerErrors(given, at, held) {
  if (given.context && given.customerSelection) return [error(at('context'), 'Only one of context or customerSelection can be provided.', 'TOO_MANY_ARGUMENTS')];
  if (!held && !given.context && !given.customerSelection) return [error(at('context'), "Context can't be blank", 'BLANK')];
  const customers = given.context?.customers?.add ?? given.customerSelection?.customers?.add ?? [];
  return customers.filter(id => !find(id)).map(id => error(at('context', 'customers', 'add'), `Customer with id: ${id.split('/').pop()} is invalid`, 'INVALID'));
}

function limitErrors(given, at) {
  if (given.usageLimit != null && given.usageLimit < 1) return [error(at('usageLimit'), 'Usage limit must be greater than 0', 'GREATER_THAN')];
  if (given.usesPerOrderLimit != null && given.usesPerOrderLimit < 1) return [error(at('usesPerOrderLimit'), 'Allocation limit must be greater than 0', 'GREATER_THAN')];
  return [];
}
