// One request to the Admin API, through graphql-yoga: cost before and after, and errors in Shopify's words.
import { GraphQLError, Kind } from 'graphql';
import { createYoga } from 'graphql-yoga';
import { costExtension, costOf, giveBack, take } from './cost.mjs';
import { buildAdminSchema } from './schema.mjs';
import * as app from './resolvers/app.mjs';
import * as bulk from './bulk.mjs';
import * as content from './resolvers/content.mjs';
import * as customers from './resolvers/customers.mjs';
import * as discounts from './resolvers/discounts.mjs';
import * as metafields from './resolvers/metafields.mjs';
import * as orders from './resolvers/orders.mjs';
import * as products from './resolvers/products.mjs';

const PARTS = [app, bulk, content, customers, discounts, metafields, orders, products];
const PATH = '/graphql.json';
const together = name => Object.assign({}, ...PARTS.map(part => part[name] ?? {}));

export function adminApi(sdlPath) {
  app.learnTopics(sdlPath);
  const fields = together('fields');
  fields.Product = { ...fields.Product, ...content.publishing };
  const [queries, mutations] = [together('queries'), together('mutations')];
  const { schema, resetMocks } = buildAdminSchema(sdlPath, { queries, mutations, fields });
  bulk.useSchema(schema);
  const yoga = createYoga({ schema, graphqlEndpoint: PATH, graphiql: false, landingPage: false, logging: false, batching: false, plugins: [costs(schema)] });
  return { answer: (body, context) => answer(yoga, body, context), resetMocks, holds: Object.keys({ ...queries, ...mutations }) };
}

const UNREAD = { status: 400, body: { errors: { query: 'Required parameter missing or invalid' } } };

async function answer(yoga, body, context) {
  try {
    if (typeof JSON.parse(body).query !== 'string') return UNREAD;
  } catch {
    return UNREAD;
  }
  const response = await yoga.fetch(`http://peer${PATH}`, {
    method: 'POST', body, headers: { 'Content-Type': 'application/json', Accept: 'application/json' },
  }, context);
  return { status: 200, body: JSON.parse(await response.text()) }; // whatever is wrong, Shopify says it with 200
}

function costs(schema) {
  return {
    onExecute({ args, setResultAndStopExecution }) {
      const { document, contextValue, variableValues, operationName } = args;
      const operation = operationOf(document, operationName);
      contextValue.operation = operation;
      const requested = costOf(schema, document, operation, variableValues ?? {});
      const refused = take(requested, { forced: contextValue.throttled });
      if (refused) {
        setResultAndStopExecution({ errors: [refused], extensions: { cost: costExtension(requested, null) } });
        return undefined;
      }
      return {
        onExecuteDone({ result, setResult }) {
          const actual = result.data ? costOf(schema, document, operation, variableValues ?? {}, result.data) : 0;
          giveBack(requested - actual);
          contextValue.cost = actual;
          setResult({ ...result, extensions: { ...result.extensions, cost: costExtension(requested, actual) } });
        },
      };
    },
  };
}

function operationOf(document, name) {
  const operations = document.definitions.filter(one => one.kind === Kind.OPERATION_DEFINITION);
  const found = name ? operations.find(one => one.name?.value === name) : operations[0];
  if (!found) throw new GraphQLError('No operation to execute');
  return found;
}
