// Shopify's scalars, as strict about what comes in as Shopify is.
import { GraphQLError, GraphQLScalarType, Kind } from 'graphql';

const text = node => (node.kind === Kind.STRING || node.kind === Kind.INT || node.kind === Kind.FLOAT ? node.value : undefined);

const bad = (name, value) => new GraphQLError(`invalid ${name} '${value}'`, { extensions: { code: 'INVALID_VARIABLE' } });

function scalar(name, description, isGood, { numbers = false, clean = value => value } = {}) {
  const parse = value => {
    const given = numbers && typeof value === 'number' ? String(value) : value;
    if (typeof given !== 'string' || !isGood(given)) throw bad(name, value);
    return clean(given);
  };
  return new GraphQLScalarType({
    name, description, serialize: value => (typeof value === 'string' ? value : String(value)), parseValue: parse,
    parseLiteral: node => {
      if (node.kind !== Kind.STRING && !(numbers && text(node) !== undefined)) throw bad(name, text(node) ?? node.kind);
      return parse(node.value);
    },
  });
}

const DECIMAL = /^-?\d+(\.\d+)?$/;
const INSTANT = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$/;
const isUrl = value => {
  try {
    return Boolean(new URL(value));
  } catch {
    return false;
  }
};
const seconds = value => new Date(value).toISOString().replace(/\.\d+Z$/, 'Z');

function anything(node, variables) {
  switch (node.kind) {
    case Kind.VARIABLE: return variables?.[node.name.value];
    case Kind.OBJECT: return Object.fromEntries(node.fields.map(one => [one.name.value, anything(one.value, variables)]));
    case Kind.LIST: return node.values.map(one => anything(one, variables));
    case Kind.NULL: return null;
    case Kind.INT: case Kind.FLOAT: return Number(node.value);
    default: return node.value;
  }
}

export const scalars = [
  scalar('ARN', 'an Amazon resource name', value => value.startsWith('arn:')),
  scalar('BigInt', 'a whole number', value => /^-?\d+$/.test(value), { numbers: true }),
  scalar('Color', 'a colour', value => /^#[0-9a-fA-F]{6}$/.test(value)),
  scalar('Date', 'a date', value => /^\d{4}-\d{2}-\d{2}$/.test(value)),
  scalar('DateTime', 'an instant', value => INSTANT.test(value) && !Number.isNaN(Date.parse(value)), { clean: seconds }),
  scalar('Decimal', 'a decimal number', value => DECIMAL.test(value), { numbers: true }),
  scalar('FormattedString', 'text with markup', () => true),
  scalar('HTML', 'HTML', () => true),
  scalar('Money', 'an amount', value => DECIMAL.test(value), { numbers: true }),
  scalar('StorefrontID', 'an id', () => true),
  scalar('URL', 'an address', isUrl),
  scalar('UnsignedInt64', 'a whole number from 0', value => /^\d{1,20}$/.test(value), { numbers: true }),
  scalar('UtcOffset', 'an offset', value => /^[+-]\d{2}:\d{2}$/.test(value)),
  new GraphQLScalarType({ name: 'JSON', serialize: value => value, parseValue: value => value, parseLiteral: anything }),
];
