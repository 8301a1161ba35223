// A page of a shop for a custom pixel: the globals that Shopify gives it, in a context of its own, and nothing else.
//   node pixel_page.mjs <script> < scenario.json     prints the requests that the script made
// scenario: {init, steps: [{event} | {consent}], statuses: [503, ...]}; a status of 0 is a connection that fails.
import { readFileSync } from 'node:fs';
import vm from 'node:vm';

const scenario = JSON.parse(readFileSync(0, 'utf8'));
const statuses = [...(scenario.statuses ?? [])];
const requests = [];
const warnings = [];
const subscribers = new Map();
let consented = null;

async function settle() {
  for (let turn = 0; turn < 50; turn++) await new Promise(resolve => setImmediate(resolve));
}

const page = {
  init: scenario.init,
  analytics: { subscribe: (name, callback) => subscribers.set(name, callback) },
  customerPrivacy: {
    subscribe(name, callback) {
      if (name !== 'visitorConsentCollected') throw new Error(`no event ${name}`);
      consented = callback;
    },
  },
  browser: {}, console: { warn: (...said) => warnings.push(said.map(String).join(' ')) }, URL, URLSearchParams,
  setTimeout: callback => setImmediate(callback),
  async fetch(url, { method, body, headers, keepalive, credentials }) {
    requests.push({ url, method, body, headers, keepalive, credentials });
    const status = statuses.shift() ?? 200;
    if (status === 0) throw new TypeError('Failed to fetch');
    return { status };
  },
};
vm.runInContext(readFileSync(process.argv[2], 'utf8'), vm.createContext(page));
for (const { event, consent } of scenario.steps) {
  if (consent) consented({ customerPrivacy: consent });
  if (event) subscribers.get(event.name)?.({ timestamp: new Date().toISOString(), ...event });
  if (!(event && event.together)) await settle();
}
await settle();
process.stdout.write(JSON.stringify({ requests, warnings, subscribed: [...subscribers.keys()] }));
