// What every resolver needs: a thing by its id, refusals, and the limits that several mutations share.
import { GraphQLError } from 'graphql';
import { find, typeOf } from '../state.mjs';

export const MOST_TAGS = 250;
export const LONGEST_TAG = 255;

// A query for an id of another type is an error, for one that is not there null.
export function load(type, id) {
  if (typeOf(id) !== type) {
    throw new GraphQLError(`Invalid id: ${id}`, { extensions: { code: 'RESOURCE_NOT_FOUND' } });
  }
  return find(id);
}

// The same for mutations, which say it as a userError.
export const known = (type, id) => (typeOf(id) === type ? find(id) : null);

export const error = (field, message, code = null, more = {}) => ({ field, message, code, ...more });
export const refuse = (...errors) => ({ userErrors: errors.flat() });
export const accept = payload => ({ userErrors: [], ...payload });

export const isBlank = text => typeof text !== 'string' || text.trim() === '';

export function tagErrors(tags, field, code = null) {
  const errors = [];
  if (tags.length > MOST_TAGS) errors.push(error(field, `Tags can't have more than ${MOST_TAGS} tags`, code ?? 'TOO_MANY_TAGS'));
  if (tags.some(one => one.length > LONGEST_TAG)) errors.push(error(field, `Tags is too long (maximum is ${LONGEST_TAG} characters)`, code ?? 'TOO_LONG'));
  return errors;
}

// As Shopify keeps tags: trimmed, once each whatever their case, sorted.
export function cleanTags(tags) {
  const once = new Map();
  for (const tag of tags.flatMap(one => one.split(',')).map(one => one.trim()).filter(Boolean)) {
    if (!once.has(tag.toLowerCase())) once.set(tag.toLowerCase(), tag);
  }
  return [...once.values()].sort((a, b) => (a.toLowerCase() < b.toLowerCase() ? -1 : 1));
}
