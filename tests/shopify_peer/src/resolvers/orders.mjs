// Orders as they are read, abandoned checkouts, and draft orders with their invoices.
import { all, db, find, milliseconds, newId, now, put, remove, setMetafield, touch } from '../state.mjs';
import { has } from '../access.mjs';
import { accept, cleanTags, error, known, load, refuse, tagErrors } from './shared.mjs';

const RECENT = 60 * 86_400_000;
const MOST_LINES = 499;

// Without read_all_orders an app sees the last sixty days.
function visible(orders, context) {
  if (has(context.scopes, 'read_all_orders')) return orders;
  return orders.filter(one => Date.parse(one.createdAt) > milliseconds() - RECENT);
}

export const queries = {
  order: ({ id }, context) => visible([load('Order', id)].filter(Boolean), context)[0] ?? null,
  orders: (_args, context) => visible(all('Order'), context),
  ordersCount: (_args, context) => visible(all('Order'), context).length,
  abandonedCheckouts: () => all('AbandonedCheckout'),
  draftOrder: ({ id }) => load('DraftOrder', id),
  draftOrders: () => all('DraftOrder'),
};

function lineErrors(line, index) {
  const at = name => ['input', 'lineItems', String(index), name];
  const errors = [];
  if (line.quantity < 1) errors.push(error(at('quantity'), 'Quantity must be greater than or equal to 1'));
  if (line.variantId && !known('ProductVariant', line.variantId)) errors.push(error(at('variantId'), `Product with ID ${line.variantId.split('/').pop()} is no longer available.`));
  if (!line.variantId && !line.title) errors.push(error(at('title'), 'Merchandise title is empty.'));
  const price = line.originalUnitPriceWithCurrency?.amount ?? line.originalUnitPrice;
  if (!line.variantId && price == null) errors.push(error(at('originalUnitPrice'), 'Original unit price is required for custom line items.'));
  if (price != null && Number(price) < 0) errors.push(error(at('originalUnitPrice'), 'Cannot be negative.'));
  errors.push(...discountErrors(line.appliedDiscount, at('appliedDiscount')));
  return errors;
}

function discountErrors(discount, path) {
  if (!discount) return [];
  if (discount.value < 0) return [error([...path, 'value'], 'Value must be greater than or equal to 0')];
  return discount.valueType === 'PERCENTAGE' && discount.value > 100 ? [error([...path, 'value'], 'Percentage must be between 0 and 100')] : [];
}

function draftErrors(input) {
  const errors = [];
  if (!input.lineItems?.length) errors.push(error(['input', 'lineItems'], 'Add at least 1 product'));
  if (input.lineItems?.length > MOST_LINES) errors.push(error(['input', 'lineItems'], `Maximum of ${MOST_LINES} line items allowed`));
  const customer = input.purchasingEntity?.customerId ?? input.customerId;
  if (customer && !known('Customer', customer)) errors.push(error(['input', 'customerId'], 'Customer does not exist'));
  if (input.email && !/^[^@\s]+@[^@\s]+\.[^@\s]+$/.test(input.email)) errors.push(error(['input', 'email'], 'Email is invalid'));
  if (input.reserveInventoryUntil && Date.parse(input.reserveInventoryUntil) < milliseconds()) {
    errors.push(error(['input', 'reserveInventoryUntil'], "Reserve time can't be in the past"));
  }
  errors.push(...discountErrors(input.appliedDiscount, ['input', 'appliedDiscount']), ...tagErrors(input.tags ?? [], ['input', 'tags']));
  return errors.concat((input.lineItems ?? []).flatMap(lineErrors));
}

function reduced(amount, discount, quantity = 1) {
  if (!discount) return amount;
  const off = discount.valueType === 'PERCENTAGE' ? amount * discount.value / 100 : discount.value * quantity;
  return Math.max(0, amount - off);
}

const two = amount => amount.toFixed(2);

function draftLine(line) {
  const variant = line.variantId ? find(line.variantId) : null;
  const product = variant && find(variant.product);
  const unit = Number(line.priceOverride?.amount ?? line.originalUnitPriceWithCurrency?.amount ?? line.originalUnitPrice ?? variant?.price ?? 0);
  const total = reduced(unit * line.quantity, line.appliedDiscount, line.quantity);
  return {
    __typename: 'DraftOrderLineItem', id: newId('DraftOrderLineItem'), quantity: line.quantity, custom: !variant, variant: line.variantId ?? null,
    product: variant?.product ?? null, title: product?.title ?? line.title, name: product?.title ?? line.title, sku: variant?.sku ?? line.sku ?? null,
    originalUnitPriceSet: two(unit), originalUnitPrice: two(unit), originalTotalSet: two(unit * line.quantity), discountedTotalSet: two(total),
    totalDiscountSet: two(unit * line.quantity - total), appliedDiscount: line.appliedDiscount ?? null, customAttributes: line.customAttributes ?? [], total,
  };
}

export const mutations = {
  draftOrderCreate({ input }) {
    const errors = draftErrors(input);
    if (errors.length) return { draftOrder: null, ...refuse(errors) };
    const lines = input.lineItems.map(draftLine);
    const subtotal = reduced(lines.reduce((sum, one) => sum + one.total, 0), input.appliedDiscount);
    const customer = input.purchasingEntity?.customerId ?? input.customerId ?? null;
    const draft = put('DraftOrder', {
      name: `#D${all('DraftOrder').length + 1}`, status: 'OPEN', ready: true, lineItems: lines, customer,
      email: input.email ?? find(customer)?.email ?? null, note2: input.note ?? null, tags: cleanTags(input.tags ?? []),
      appliedDiscount: input.appliedDiscount ?? null, subtotalPriceSet: two(subtotal), totalPriceSet: two(subtotal), totalPrice: two(subtotal),
      customAttributes: input.customAttributes ?? [], discountCodes: input.discountCodes ?? [], invoiceSentAt: null, completedAt: null,
      totalQuantityOfLineItems: lines.reduce((sum, one) => sum + one.quantity, 0), reserveInventoryUntil: input.reserveInventoryUntil ?? null,
    });
    draft.invoiceUrl = `https://peer.example/invoices/${draft.id.split('/').pop()}`;
    for (const one of input.metafields ?? []) setMetafield(draft.id, { ...one, namespace: one.namespace ?? '$app' });
    return accept({ draftOrder: draft });
  },
  draftOrderDelete({ input }) {
    const draft = known('DraftOrder', input.id);
    if (!draft) return { deletedId: null, ...refuse(error(['id'], 'Draft order does not exist')) };
    if (draft.status === 'COMPLETED') return { deletedId: null, ...refuse(error(['id'], 'Draft order is already completed and cannot be deleted')) };
    remove(draft);
    return accept({ deletedId: draft.id });
  },
  draftOrderInvoiceSend({ id, email }) {
    const draft = known('DraftOrder', id);
    if (!draft) return { draftOrder: null, ...refuse(error(['id'], 'Draft order does not exist')) };
    if (draft.status === 'COMPLETED') return { draftOrder: draft, ...refuse(error(['id'], 'Draft order is already completed')) };
    const to = email?.to ?? draft.email;
    if (!to) return { draftOrder: draft, ...refuse(error(['email', 'to'], "To can't be blank")) };
    db.sent.push({ draftOrder: id, to, subject: email?.subject ?? null, message: email?.customMessage ?? null, at: now() });
    return accept({ draftOrder: touch(draft, { status: 'INVOICE_SENT', invoiceSentAt: now() }) });
  },
};

export const fields = {
  Order: {
    subtotalLineItemsQuantity: order => order.lineItems.reduce((sum, one) => sum + one.quantity, 0),
    currentSubtotalLineItemsQuantity: order => order.lineItems.reduce((sum, one) => sum + one.currentQuantity, 0),
    unpaid: order => order.unpaid ?? !order.fullyPaid,
    number: order => Number(order.name.replace(/\D/g, '')) || 0,
    currentTotalPriceSet: order => order.currentTotalPriceSet ?? order.totalPriceSet,
    originalTotalPriceSet: order => order.originalTotalPriceSet ?? order.totalPriceSet,
    customerAcceptsMarketing: order => find(order.customer)?.emailMarketingConsent?.marketingState === 'SUBSCRIBED',
  },
};
