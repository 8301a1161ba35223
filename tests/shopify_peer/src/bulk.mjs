// Bulk operations: what is asked for at once, finished after some polls, and read as JSONL at an address of its own.
import { execute, getNamedType, getNullableType, isListType, isObjectType, Kind, parse, TypeInfo, validate, visit, visitWithTypeInfo } from 'graphql';
import { createReadStream, statSync } from 'node:fs';
import { db, newId, now } from './state.mjs';
import { accept, error, load, refuse } from './resolvers/shared.mjs';

const OPEN = ['CREATED', 'RUNNING', 'CANCELING'];
const MOST_CONNECTIONS = 5;
const DEEPEST = 2;

let schema = null;
export const useSchema = given => { schema = given; };

const isConnection = type => isObjectType(type) && type.name.endsWith('Connection') && Boolean(type.getFields().pageInfo);

const invalid = message => error(['query'], message, 'INVALID');

export const queries = {
  bulkOperation({ id }, context) {
    const known = load('BulkOperation', id) ?? db.bulk.get(id);
    return known ? advance(known, context) : null;
  },
  bulkOperations: (_args, { origin }) => [...db.bulk.values()].map(one => shown(one, origin)),
  currentBulkOperation: (_args, { origin }) => [...db.bulk.values()].map(one => shown(one, origin)).at(-1) ?? null,
};

export const mutations = {
  async bulkOperationRunQuery({ query, groupObjects }, context) {
    const none = one => ({ bulkOperation: null, ...refuse(one) });
    const open = [...db.bulk.values()].filter(one => OPEN.includes(one.status));
    if (open.length >= db.settings.bulk.limit) {
      return none(error(null, `A bulk query operation for this app and shop is already in progress: ${open[0].id}.`, 'OPERATION_IN_PROGRESS'));
    }
    const wrong = queryErrors(query);
    if (wrong.length) return none(wrong);
    const operation = {
      __typename: 'BulkOperation', id: newId('BulkOperation'), type: 'QUERY', query, status: 'CREATED', createdAt: now(), completedAt: null,
      errorCode: null, objectCount: '0', rootObjectCount: '0', fileSize: null, key: Math.random().toString(36).slice(2),
      pollsLeft: db.settings.bulk.polls, grouped: groupObjects,
    };
    operation.result = await resultOf(operation, context);
    db.bulk.set(operation.id, operation);
    return accept({ bulkOperation: shown(operation) });
  },
  bulkOperationCancel({ id }) {
    const operation = db.bulk.get(id);
    if (!operation) return { bulkOperation: null, ...refuse(error(['id'], 'Bulk operation does not exist')) };
    if (!OPEN.includes(operation.status)) return { bulkOperation: shown(operation), ...refuse(error(null, `A bulk operation cannot be canceled when it is ${operation.status.toLowerCase()}`)) };
    operation.status = 'CANCELING';
    operation.pollsLeft = 0;
    return accept({ bulkOperation: shown(operation) });
  },
};

function advance(operation, context) {
  if (OPEN.includes(operation.status)) {
    if (operation.status === 'CANCELING') finish(operation, 'CANCELED');
    else if (operation.pollsLeft-- > 0) operation.status = 'RUNNING';
    else if (db.settings.bulk.fail) {
      finish(operation, 'FAILED');
      operation.errorCode = db.settings.bulk.fail;
      operation.isPartial = db.settings.bulk.partial;
    } else finish(operation, 'COMPLETED');
  }
  return shown(operation, context?.origin);
}

function finish(operation, status) {
  operation.status = status;
  operation.completedAt = now();
  if (status !== 'COMPLETED') return;
  const { size, count, roots } = operation.result;
  Object.assign(operation, { objectCount: String(count), rootObjectCount: String(roots), fileSize: size ? String(size) : null });
}

function shown(operation, origin = null) {
  const { result, pollsLeft: _polls, grouped: _grouped, isPartial, key, ...told } = operation;
  const address = result.size && origin ? `${origin}/bulk/${operation.id.split('/').pop()}.jsonl?key=${key}` : null;
  return { ...told, url: told.status === 'COMPLETED' ? address : null, partialDataUrl: told.status === 'FAILED' && isPartial ? address : null };
}

// --- which queries may be run in bulk

function queryErrors(text) {
  let document;
  try {
    document = parse(text);
  } catch (problem) {
    return [invalid(`Invalid bulk query: ${problem.message}`)];
  }
  const found = validate(schema, document);
  if (found.length) return [invalid(`Invalid bulk query: ${found[0].message}`)];
  const operations = document.definitions.filter(one => one.kind === Kind.OPERATION_DEFINITION);
  if (operations.length !== 1 || operations[0].operation !== 'query') return [invalid('Bulk queries must contain exactly one query operation.')];
  return shapeErrors(document, operations[0]);
}

function shapeErrors(document, operation) {
  const info = new TypeInfo(schema);
  const seen = { connections: 0, deepest: 0, lists: 0, idless: 0 };
  const path = []; // of connections we are in, each with whether its node selects `id`
  let lists = 0;
  visit(document, visitWithTypeInfo(info, {
    Field: {
      enter(node) {
        const type = getNullableType(info.getType());
        if (isConnection(getNamedType(type))) {
          seen.connections += 1;
          seen.deepest = Math.max(seen.deepest, path.length);
          if (lists) seen.lists += 1;
          if (path.length && !path.at(-1)) seen.idless += 1;
          path.push(selectsId(node));
        } else if (isListType(type) && !['edges', 'nodes'].includes(node.name.value)) lists += 1;
      },
      leave(node) {
        const type = getNullableType(info.getType());
        if (isConnection(getNamedType(type))) path.pop();
        else if (isListType(type) && !['edges', 'nodes'].includes(node.name.value)) lists -= 1;
      },
    },
  }));
  const errors = [];
  const tops = operation.selectionSet.selections.map(one => one.name?.value);
  if (tops.some(name => ['node', 'nodes'].includes(name))) errors.push(invalid(`Bulk queries cannot contain a top level \`${tops.find(name => ['node', 'nodes'].includes(name))}\` field.`));
  if (!seen.connections) errors.push(invalid('Bulk queries must contain at least one connection.'));
  if (seen.connections > MOST_CONNECTIONS) errors.push(invalid(`Bulk queries cannot contain more than ${MOST_CONNECTIONS} connections.`));
  if (seen.deepest > DEEPEST) errors.push(invalid(`Bulk queries cannot contain connections with a nesting depth greater than ${DEEPEST}.`));
  if (seen.lists) errors.push(invalid('Queries that contain a connection field within a list field are not currently supported.'));
  if (seen.idless) errors.push(invalid("The parent 'node' field for a nested connection must select the 'id' field without an alias and must be of 'ID' return type."));
  return errors;
}

function selectsId(connection) {
  const fields = set => (set?.selections ?? []).filter(one => one.kind === Kind.FIELD);
  const inner = fields(connection.selectionSet).flatMap(one => (one.name.value === 'edges' ? fields(one.selectionSet).filter(edge => edge.name.value === 'node') : one.name.value === 'nodes' ? [one] : []));
  return inner.some(node => fields(node.selectionSet).some(one => one.name.value === 'id' && !one.alias));
}

// --- the file

async function resultOf(operation, context) {
  const root = parse(operation.query).definitions[0].selectionSet.selections[0].name.value;
  const put = db.settings.bulk.lines[root];
  if (put?.path) return { path: put.path, size: statSync(put.path).size, count: put.count ?? 0, roots: put.roots ?? put.count ?? 0 };
  if (put) return textOf(put.map(one => (typeof one === 'string' ? one : JSON.stringify(one))), put.filter(one => !JSON.stringify(one).includes('__parentId')).length);
  const { data, errors } = await execute({ schema, document: parse(operation.query), contextValue: { ...context, bulk: true, called: null } });
  if (errors?.length) throw errors[0];
  const lines = [];
  let roots = 0;
  for (const value of Object.values(data)) roots += flatten(value, null, operation.grouped, lines);
  return textOf(lines.map(one => JSON.stringify(one)), roots);
}

function textOf(lines, roots) {
  const bytes = Buffer.from(lines.map(one => `${one}\n`).join(''));
  return { bytes, size: bytes.length, count: lines.length, roots };
}

const isPage = value => value && typeof value === 'object' && !Array.isArray(value) && ('edges' in value || 'nodes' in value);

// Grouped: children right after their parent. Otherwise Shopify promises no order: here children of all come last.
function flatten(connection, parent, grouped, lines, late = []) {
  const nodes = connection.nodes ?? connection.edges.map(one => one.node);
  for (const node of nodes) {
    const children = [];
    const line = { ...bare(node, children), ...(parent ? { __parentId: parent } : {}) };
    lines.push(line);
    for (const child of children) {
      if (grouped) flatten(child, node.id, true, lines);
      else late.push([child, node.id]);
    }
  }
  if (!grouped && parent === null) for (let index = 0; index < late.length; index++) flatten(late[index][0], late[index][1], false, lines, late);
  return nodes.length;
}

function bare(value, children) {
  if (Array.isArray(value)) return value.map(one => bare(one, children));
  if (value === null || typeof value !== 'object') return value;
  const made = {};
  for (const [name, one] of Object.entries(value)) {
    if (isPage(one)) children.push(one);
    else made[name] = bare(one, children);
  }
  return made;
}

export function download(request, url, response, fault) {
  const operation = [...db.bulk.values()].find(one => one.id.endsWith(`/${/^\/bulk\/(\d+)\.jsonl$/.exec(url.pathname)?.[1]}`));
  if (!operation || url.searchParams.get('key') !== operation.key || fault?.kind === 'expire') {
    response.writeHead(400, { 'Content-Type': 'application/xml' });
    response.end("<?xml version='1.0' encoding='UTF-8'?><Error><Code>ExpiredToken</Code><Message>Invalid argument.</Message></Error>");
    return 400;
  }
  const { size, path, bytes } = operation.result;
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
  const start = range ? Number(range[1]) : 0;
  const end = range?.[2] ? Math.min(Number(range[2]), size - 1) : size - 1;
  if (start > end) {
    response.writeHead(416, { 'Content-Range': `bytes */${size}` });
    response.end();
    return 416;
  }
  const headers = { 'Content-Type': 'application/jsonl', 'Content-Length': end - start + 1, 'Accept-Ranges': 'bytes', ETag: `"${operation.key}"` };
  if (range) headers['Content-Range'] = `bytes ${start}-${end}/${size}`;
  response.writeHead(range ? 206 : 200, headers);
  const last = fault?.kind === 'truncate' ? Math.min(end, start + (fault.bytes ?? Math.floor((end - start) / 2)) - 1) : end;
  const finished = () => (last < end ? response.destroy() : response.end());
  if (path) createReadStream(path, { start, end: Math.max(start, last) }).on('end', finished).pipe(response, { end: false });
  else response.write(bytes.subarray(start, last + 1), finished);
  return range ? 206 : 200;
}
