// A shop for tests: Admin GraphQL API, OAuth and bulk downloads on one port, steered under /control/.
//   node server.mjs --schema admin.graphql.gz [--port 0]    prints "listening <port>" when it is ready
import { createServer } from 'node:http';
import { parse } from 'graphql';
import { setTimeout as sleep } from 'node:timers/promises';
import { tokenOf } from './access.mjs';
import { download } from './bulk.mjs';
import { control, faultFor } from './control.mjs';
import { adminApi } from './graphql.mjs';
import { exchange, settle } from './oauth.mjs';
import { db } from './state.mjs';

const argument = name => process.argv[process.argv.indexOf(`--${name}`) + 1];
const api = adminApi(argument('schema'));
const GRAPHQL = /^\/admin\/api\/([^/]+)\/graphql\.json$/;
const LONGEST_BODY = 10 * 1024 * 1024;

async function read(request) {
  const parts = [];
  let size = 0;
  for await (const part of request) {
    size += part.length;
    if (size <= LONGEST_BODY) parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}

function send(response, status, body, headers = {}) {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  response.writeHead(status, { 'Content-Type': 'application/json; charset=utf-8', ...headers });
  response.end(text);
}

function describe(text) {
  try {
    const { query, variables, operationName } = JSON.parse(text);
    const document = parse(query);
    const operation = document.definitions.find(one => one.kind === 'OperationDefinition' && (!operationName || one.name?.value === operationName));
    const fields = operation.selectionSet.selections.map(one => one.name?.value).filter(Boolean);
    return { operation: operation.name?.value ?? null, fields, variables: variables ?? {} };
  } catch {
    return { operation: null, fields: [], variables: {} };
  }
}

async function handle(request, response) {
  const url = new URL(request.url, `http://${request.headers.host}`);
  const text = request.method === 'POST' ? await read(request) : '';
  if (url.pathname.startsWith('/control/')) {
    const { status, body } = control(request, url, text, api);
    return send(response, status, body);
  }
  const said = GRAPHQL.test(url.pathname) ? describe(text) : { operation: null, fields: [], variables: {} };
  const call = { method: request.method, path: url.pathname, ...said, at: new Date().toISOString(), status: 0 };
  db.calls.push(call);
  const fault = faultFor([url.pathname, call.operation, ...(call.fields ?? [])]);
  call.fault = fault?.kind;
  if (fault?.kind === 'drop_before') return request.socket.destroy();
  if (fault?.kind === 'delay') await sleep(fault.seconds * 1000);
  if (fault?.kind === 'status') {
    call.status = fault.status;
    return send(response, fault.status, fault.body ?? { errors: 'Service unavailable' }, fault.headers);
  }
  if (url.pathname.startsWith('/bulk/')) {
    call.status = download(request, url, response, fault);
    call.range = request.headers.range ?? null;
    return undefined;
  }
  const { status, body, headers } = await answer(request, url, text, call, fault);
  if (fault?.kind === 'drop_after') return request.socket.destroy();
  call.status = fault?.kind === 'status_after' ? fault.status : status;
  if (fault?.kind === 'garbage') return send(response, 200, '<html>maintenance</html>', { 'Content-Type': 'text/html' });
  return send(response, call.status, fault?.kind === 'status_after' ? fault.body ?? { errors: 'Internal error' } : body, headers);
}

async function answer(request, url, text, call, fault) {
  const graphql = GRAPHQL.exec(url.pathname);
  if (graphql && request.method === 'POST') return graphqlAnswer(request, url, text, call, fault, graphql[1]);
  if (url.pathname === '/admin/oauth/access_token' && request.method === 'POST') return exchange(form(request, text));
  return { status: 404, body: { errors: 'Not Found' } };
}

function form(request, text) {
  try {
    return (request.headers['content-type'] ?? '').includes('json') ? JSON.parse(text) : Object.fromEntries(new URLSearchParams(text));
  } catch {
    return {};
  }
}

async function graphqlAnswer(request, url, text, call, fault, version) {
  if (version !== db.settings.version) return { status: 404, body: { errors: 'Not Found' } };
  const token = tokenOf(request);
  if (token && fault?.kind === 'revoke') token.revoked = true;
  if (!token || token.revoked) return { status: 401, body: { errors: '[API] Invalid API key or access token (unrecognized login or wrong password)' } };
  settle(token);
  if (fault?.kind === 'graphql_errors') return { status: 200, body: { errors: fault.errors } };
  const context = {
    token, scopes: token.scopes, origin: url.origin, called: [], bulk: false, throttled: fault?.kind === 'throttle',
    refusal: fault?.kind === 'user_errors' ? () => fault.errors : null,
  };
  const { status, body } = await api.answer(text, context);
  call.mocked = context.called.filter(one => one.mocked).map(one => one.field);
  call.cost = context.cost ?? null;
  call.errors = body.errors;
  return { status, body, headers: { 'X-Shopify-API-Version': version, 'X-Request-Id': `peer-${db.calls.length}` } };
}

const server = createServer((request, response) => {
  handle(request, response).catch(problem => {
    process.stderr.write(`${problem.stack}\n`);
    if (!response.headersSent) send(response, 500, { errors: 'Internal Server Error' });
  });
});
server.keepAliveTimeout = 30_000;
server.listen(Number(argument('port') ?? 0), '127.0.0.1', () => process.stdout.write(`listening ${server.address().port}\n`));
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
process.stdin.on('end', () => process.exit(0)).resume(); // the launcher is gone
