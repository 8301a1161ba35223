const SETTINGS = {};

// What a visitor must have allowed before anything leaves. Add 'marketingAllowed' to ask for more.
const NEEDED = ['analyticsProcessingAllowed'];

const MOST_WAITING = 100;
const MOST_AT_ONCE = 50;
const ATTEMPTS = 4;

let allowed = isAllowed(init && init.customerPrivacy);
let allowedSince = allowed ? 0 : Infinity;
let waiting = [];
let isSending = false;
let customerId = idOf(init && init.data && init.data.customer);
const told = new Set();

function isAllowed(privacy) {
  return Boolean(privacy) && NEEDED.every(name => privacy[name] === true);
}

// A withdrawal drops what has not left; what happened before a yes is never sent.
customerPrivacy.subscribe('visitorConsentCollected', event => {
  const now = isAllowed(event && event.customerPrivacy);
  if (now && !allowed) allowedSince = Date.now();
  if (!now) {
    waiting = [];
    told.clear();
  }
  allowed = now;
});

// --- sending: at once, because a page may be left at any moment

function enqueue(event, message) {
  if (!allowed || Date.parse(event.timestamp) < allowedSince) return false;
  waiting.push({ ...message, timestamp: event.timestamp, context: contextOf(event, message) });
  waiting = waiting.slice(-MOST_WAITING);
  if (!isSending) {
    isSending = true;
    Promise.resolve().then(drain);
  }
  return true;
}

async function drain() {
  try {
    for (let attempt = 0; allowed && waiting.length && attempt < ATTEMPTS; ) {
      const batch = waiting.slice(0, MOST_AT_ONCE);
      const isDone = await post(batch);
      const sent = new Set(batch);
      if (isDone) {
        waiting = waiting.filter(one => !sent.has(one));
        attempt = 0;
      } else {
        attempt += 1;
        if (attempt < ATTEMPTS) await new Promise(resolve => setTimeout(resolve, 500 * 2 ** attempt));
      }
    }
  } finally {
    isSending = false; // what is still waiting goes with the next event; its messageId keeps it from counting twice
  }
}

// Plain text is sent without a preflight; the write key stands in the body, as Segment's libraries send it.
async function post(batch) {
  const body = JSON.stringify({ writeKey: SETTINGS.writeKey, sentAt: new Date().toISOString(), batch });
  try {
    const response = await fetch(SETTINGS.address, {
      method: 'POST', body, keepalive: body.length < 60000, credentials: 'omit', headers: { 'Content-Type': 'text/plain' },
    });
    return response.status < 500 && response.status !== 429 && response.status !== 408; // refused is refused for good
  } catch (error) {
    return false;
  }
}

// --- who and where

// Of gid://shopify/Cart/abc?key=def: abc.
function idOf(thing) {
  const id = thing && thing.id;
  return id ? String(id).split('/').pop().split('?')[0] : null;
}

function contextOf(event, message) {
  const place = event.context || {};
  const context = {
    library: { name: 'opagent-shopify-pixel', version: '1' },
    userAgent: place.navigator && place.navigator.userAgent,
    locale: place.navigator && place.navigator.language,
    page: pageOf(place),
    campaign: campaignOf(place),
  };
  if (customerId && message.type !== 'alias') context.externalIds = [{ type: 'shopify_customer_id', id: customerId }];
  return context;
}

// No query string, and nothing after /checkouts or /account: both hold secrets of the visitor.
function pageOf({ document: page = {} }) {
  const found = page.location || {};
  const path = String(found.pathname || '').replace(/^(.*?\/(?:checkouts|account|orders|gift_cards))\/.*$/, '$1');
  return { path, url: found.origin ? found.origin + path : undefined, title: page.title, referrer: originOf(page.referrer) };
}

function originOf(address) {
  try {
    return new URL(address).origin;
  } catch (error) {
    return undefined;
  }
}

function campaignOf({ document: page = {} }) {
  const given = new URLSearchParams((page.location && page.location.search) || '');
  const found = {};
  for (const [name, as] of [['source', 'source'], ['medium', 'medium'], ['campaign', 'name'], ['term', 'term'], ['content', 'content']]) {
    if (given.get('utm_' + name)) found[as] = given.get('utm_' + name);
  }
  return found;
}

// The shop's webhooks know a cart as `cart:<token>`. A visitor's cart is told to be the visitor's; a customer's, the customer's.
function tellCart(event, cart) {
  const token = idOf(cart);
  const known = token && token + '/' + (customerId || event.clientId);
  if (!token || !allowed || told.has(known)) return;
  const anonymous = 'cart:' + token;
  const message = customerId
    ? { type: 'identify', messageId: 'cart-customer:' + known, anonymousId: anonymous, traits: {} }
    : { type: 'alias', messageId: 'cart-visitor:' + known, anonymousId: event.clientId, previousId: anonymous };
  if (enqueue(event, message)) told.add(known);
}

// --- what happened

// Amounts count in the shop's own currency only; in a visitor's currency they are kept under another name.
function money(name, price) {
  if (!price || price.amount === undefined || price.amount === null) return {};
  if (SETTINGS.currency && price.currencyCode !== SETTINGS.currency) {
    return { ['presentment_' + name]: price.amount, presentment_currency: price.currencyCode };
  }
  return { [name]: price.amount, currency: price.currencyCode };
}

function productOf(variant) {
  const product = (variant && variant.product) || {};
  return {
    product_id: idOf(product) || undefined, variant_id: idOf(variant) || undefined, sku: (variant && variant.sku) || undefined,
    name: product.title, variant: variant && variant.title, brand: product.vendor, category: product.type, ...money('price', variant && variant.price),
  };
}

const lineOf = line => ({ ...productOf(line && line.merchandise), quantity: (line && line.quantity) || undefined, cart_id: idOf(init.data && init.data.cart) || undefined });

const checkoutOf = checkout => ({
  checkout_id: checkout.token, ...money('value', checkout.totalPrice),
  products: (checkout.lineItems || []).map(line => ({ ...productOf(line.variant), quantity: line.quantity })),
});

// Where the shop's webhooks tell of carts and checkouts already, these are told under Shopify's names: they count once.
const byWebhook = SETTINGS.carts === 'webhooks';

const REPORTS = {
  page_viewed: event => ({ type: 'page', properties: pageOf(event.context || {}) }),
  product_viewed: event => track('Product Viewed', productOf(event.data.productVariant)),
  search_submitted: event => track('Products Searched', { query: String((event.data.searchResult && event.data.searchResult.query) || '') }),
  product_added_to_cart: event => track(byWebhook ? 'product_added_to_cart' : 'Product Added', lineOf(event.data.cartLine)),
  product_removed_from_cart: event => track('Product Removed', lineOf(event.data.cartLine)),
  cart_viewed: event => {
    const cart = event.data.cart || {};
    return track('cart_viewed', { cart_id: idOf(cart) || undefined, quantity: cart.totalQuantity, ...money('value', cart.cost && cart.cost.totalAmount) });
  },
  checkout_started: event => track(byWebhook ? 'checkout_started' : 'Checkout Started', checkoutOf(event.data.checkout)),
  // Not an order: the shop itself reports that, signed. This says only that this visitor was the one.
  checkout_completed: event => track('checkout_completed', { ...checkoutOf(event.data.checkout), order_id: idOf(event.data.checkout.order) || undefined }),
};

function track(name, properties) {
  return { type: 'track', event: name, properties };
}

function report(event) {
  if (!allowed) return;
  const checkout = event.data && event.data.checkout;
  customerId = idOf(checkout && checkout.order && checkout.order.customer) || customerId;
  tellCart(event, (event.data && event.data.cart) || (init.data && init.data.cart));
  enqueue(event, { ...REPORTS[event.name](event), messageId: event.id, anonymousId: event.clientId });
}

if (!/^opk_/.test(SETTINGS.writeKey)) {
  console.warn('The write key is missing: put it into SETTINGS.');
} else {
  for (const name of Object.keys(REPORTS)) {
    analytics.subscribe(name, event => {
      try {
        report(event);
      } catch (error) {
        console.warn('A customer event could not be read: ' + name, error);
      }
    });
  }
}
