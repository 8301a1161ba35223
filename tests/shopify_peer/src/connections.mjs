// Pages of a list: cursors, search terms and sorting as the Admin API has them.
import { GraphQLError } from 'graphql';
import { numberOf } from './state.mjs';

const LONGEST_PAGE = 250;

export function page(list, args, { bulk = false } = {}) {
  let nodes = args.query ? list.filter(matcher(args.query)) : [...list];
  nodes = sorted(nodes, args.sortKey);
  if (args.reverse) nodes.reverse();
  const from = args.after ? position(nodes, args.after) + 1 : 0;
  const until = args.before ? position(nodes, args.before) : nodes.length;
  let start = from;
  let end = until;
  if (!bulk) {
    const size = checkedSize(args);
    if (args.first != null) end = Math.min(until, from + size);
    else start = Math.max(from, until - size);
  }
  const chosen = nodes.slice(start, end);
  const edges = chosen.map((node, index) => ({ node, cursor: cursor(node, start + index) }));
  return {
    edges, nodes: chosen,
    pageInfo: {
      hasNextPage: end < nodes.length, hasPreviousPage: start > 0,
      startCursor: edges[0]?.cursor ?? null, endCursor: edges.at(-1)?.cursor ?? null,
    },
  };
}

function checkedSize({ first, last }) {
  if (first == null && last == null) throw refused('you must provide one of first or last');
  if (first != null && last != null) throw refused('providing both first and last is not supported');
  const size = first ?? last;
  const name = first != null ? 'first' : 'last';
  if (size < 1) throw refused(`${name} must be greater than 0`);
  if (size > LONGEST_PAGE) throw refused(`${name} cannot exceed ${LONGEST_PAGE}`);
  return size;
}

export const refused = message => new GraphQLError(message, { extensions: { code: 'BAD_REQUEST' } });

const cursor = (node, index) => Buffer.from(JSON.stringify({ id: node?.id ?? null, index })).toString('base64');

function position(nodes, given) {
  let read;
  try {
    read = JSON.parse(Buffer.from(given, 'base64').toString());
  } catch {
    throw refused(`invalid cursor for current pagination sort: ${given}`);
  }
  const found = read.id ? nodes.findIndex(node => node.id === read.id) : -1;
  return found >= 0 ? found : read.index;
}

function sorted(nodes, key) {
  if (!key || ['RELEVANCE', 'POSITION', 'COLLECTION_DEFAULT', 'MANUAL', 'NAME_DEFAULT'].includes(key)) return nodes;
  const name = key.toLowerCase().replace(/_(.)/g, (_, letter) => letter.toUpperCase());
  const value = node => (name === 'id' ? BigInt(/^\d+$/.test(numberOf(node.id)) ? numberOf(node.id) : 0) : node[name] ?? '');
  if (name !== 'id' && !nodes.some(node => node[name] !== undefined)) return nodes;
  return [...nodes].sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0));
}

// --- search: terms joined by a space or AND, alternatives by OR, NOT or - before a term

export function matcher(query) {
  const alternatives = query.split(/\s+OR\s+/).map(part => part.replace(/[()]/g, ' ').trim());
  const tests = alternatives.map(part => {
    const terms = part.match(/(?:NOT\s+|-)?[\w.]+:(?:>=|<=|>|<)?(?:"[^"]*"|'[^']*'|\S+)|(?:NOT\s+|-)?(?:"[^"]*"|'[^']*'|[^\s]+)/g) ?? [];
    const each = terms.filter(term => term !== 'AND').map(termTest);
    return node => each.every(test => test(node));
  });
  return node => tests.some(test => test(node));
}

function termTest(term) {
  const negated = /^(NOT\s+|-)/.test(term);
  const bare = term.replace(/^(NOT\s+|-)/, '');
  const [, name, comparison, quoted] = /^(?:([\w.]+):)?(>=|<=|>|<)?([\s\S]*)$/.exec(bare);
  const wanted = quoted.replace(/^["']|["']$/g, '');
  const test = name ? fieldTest(name, comparison, wanted) : node => freeText(node).includes(wanted.toLowerCase());
  return negated ? node => !test(node) : test;
}

const NAMES = { tag: 'tags', email: 'email', default_code: 'code', sku: 'sku', discount_type: 'discountType' };

function fieldTest(name, comparison, wanted) {
  const field = NAMES[name] ?? name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
  return node => {
    const held = name === 'id' ? numberOf(node.id) : valueOf(node, field);
    if (held === undefined) return true; // Shopify leaves a filter out that it does not know
    if (Array.isArray(held)) return held.some(one => same(one, wanted));
    if (!comparison) return same(held, wanted);
    return compare(held, wanted, comparison);
  };
}

function valueOf(node, field) {
  if (field in node) return node[field];
  if (field.endsWith('Id') && field.slice(0, -2) in node) return numberOf(String(node[field.slice(0, -2)]));
  return undefined;
}

function same(held, wanted) {
  if (held === null) return false;
  const [one, other] = [String(held).toLowerCase(), wanted.toLowerCase()];
  if (other.endsWith('*')) return one.startsWith(other.slice(0, -1));
  return one === other || (one.startsWith('gid://') && numberOf(one) === numberOf(other));
}

function compare(held, wanted, comparison) {
  if (held === null) return false;
  const isDate = /^\d{4}-\d{2}-\d{2}/.test(wanted);
  const isNumber = /^-?\d+(\.\d+)?$/.test(wanted);
  const [one, other] = isDate ? [Date.parse(held), Date.parse(wanted)] : isNumber ? [Number(held), Number(wanted)] : [String(held), wanted];
  if (comparison === '>') return one > other;
  if (comparison === '>=') return one >= other;
  return comparison === '<' ? one < other : one <= other;
}

const freeText = node => [node.title, node.name, node.email, node.firstName, node.lastName, node.handle, node.code]
  .filter(one => typeof one === 'string').join(' ').toLowerCase();
