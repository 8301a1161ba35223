// Code discounts: percentage, amount, free shipping, buy X get Y; their codes, one by one and in bulk.
import { all, db, find, gid, milliseconds, newId, now, numberOf, put, remove, touch } from '../state.mjs';
import { discountErrors } from './discount_errors.mjs';
import { discountOf } from './discount_forms.mjs';
import { accept, error, known, load, refuse } from './shared.mjs';

const MOST_AT_ONCE = 250;
const LONGEST_CODE = 255;
const KINDS = { basicCodeDiscount: 'DiscountCodeBasic', freeShippingCodeDiscount: 'DiscountCodeFreeShipping', bxgyCodeDiscount: 'DiscountCodeBxgy' };

export const byCode = code => all('DiscountCodeNode').find(node => node.discount.codes.some(one => one.code.toLowerCase() === code.toLowerCase())) ?? null;

export const queries = {
  codeDiscountNode: ({ id }) => load('DiscountCodeNode', id),
  codeDiscountNodeByCode: ({ code }) => byCode(code),
  codeDiscountNodes: () => all('DiscountCodeNode').map(searchable),
  discountNode: ({ id }) => asDiscountNode(find(gid('DiscountCodeNode', numberOf(id)))),
  discountNodes: () => [...all('DiscountCodeNode').map(searchable).map(asDiscountNode), ...all('DiscountAutomaticNode').map(one => ({ ...one, ...one.discount, __typename: 'DiscountNode', id: one.id }))],
  discountRedeemCodeBulkCreation({ id }) {
    const creation = load('DiscountRedeemCodeBulkCreation', id);
    if (creation && !creation.done) progress(creation);
    return creation;
  },
};

// DiscountNode and DiscountCodeNode are two views of one discount, with the same number.
const asDiscountNode = node => node && { ...node, __typename: 'DiscountNode', id: gid('DiscountCodeNode', numberOf(node.id)) };
const searchable = node => ({ ...node, title: node.discount.title, status: statusOf(node.discount).toLowerCase(), code: node.discount.codes.map(one => one.code), updatedAt: node.discount.updatedAt, createdAt: node.discount.createdAt, startsAt: node.discount.startsAt, endsAt: node.discount.endsAt });

function statusOf(discount) {
  const at = milliseconds();
  if (discount.endsAt && Date.parse(discount.endsAt) <= at) return 'EXPIRED';
  return Date.parse(discount.startsAt) > at ? 'SCHEDULED' : 'ACTIVE';
}

const makeCode = code => ({ __typename: 'DiscountRedeemCode', id: newId('DiscountRedeemCode'), code, asyncUsageCount: 0 });

function creator(argument) {
  return args => {
    const given = args[argument];
    const errors = discountErrors(given, argument, { byCode });
    if (errors.length) return { codeDiscountNode: null, ...refuse(errors) };
    const discount = { __typename: KINDS[argument], createdAt: now(), updatedAt: now(), asyncUsageCount: 0, codes: [makeCode(given.code)], tags: [], ...discountOf(given) };
    return accept({ codeDiscountNode: put('DiscountCodeNode', { discount }) });
  };
}

function updater(argument) {
  return args => {
    const node = known('DiscountCodeNode', args.id);
    if (!node) return { codeDiscountNode: null, ...refuse(missing()) };
    const given = args[argument];
    if (node.discount.__typename !== KINDS[argument]) return { codeDiscountNode: null, ...refuse(error([argument], 'Discount type cannot be changed', 'INVALID')) };
    const errors = discountErrors(given, argument, { byCode, node });
    if (errors.length) return { codeDiscountNode: null, ...refuse(errors) };
    const changes = discountOf(given, node.discount);
    Object.assign(node.discount, changes, { updatedAt: now() });
    if (given.code && node.discount.codes.length === 1) node.discount.codes[0].code = given.code;
    return accept({ codeDiscountNode: touch(node) });
  };
}

const missing = (field = ['id']) => error(field, 'Discount does not exist.', 'INVALID');

function ended(id, change) {
  const node = known('DiscountCodeNode', id);
  if (!node) return { codeDiscountNode: null, ...refuse(missing()) };
  change(node.discount);
  node.discount.updatedAt = now();
  return accept({ codeDiscountNode: touch(node) });
}

function progress(creation) {
  if (creation.pollsLeft-- > 0) return;
  const node = find(creation.discountCode);
  for (const one of creation.codes) {
    const wrong = codeError(one.code);
    if (wrong || !node) {
      one.errors = [wrong ?? missing(null)];
      continue;
    }
    one.discountRedeemCode = makeCode(one.code);
    node.discount.codes.push(one.discountRedeemCode);
  }
  const failed = creation.codes.filter(one => one.errors.length).length;
  touch(creation, { done: true, failedCount: failed, importedCount: creation.codes.length - failed });
  if (node) node.discount.updatedAt = now();
}

function codeError(code) {
  if (!code.trim()) return error(['code'], "Code can't be blank", 'BLANK');
  if (code.length > LONGEST_CODE) return error(['code'], `Code is too long (maximum is ${LONGEST_CODE} characters)`, 'TOO_LONG');
  if (/[\r\n]/.test(code)) return error(['code'], 'Code contains invalid characters', 'INVALID');
  return byCode(code) ? error(['code'], 'Code must be unique. Please try a different code.', 'TAKEN') : null;
}

export const mutations = {
  discountCodeBasicCreate: creator('basicCodeDiscount'),
  discountCodeFreeShippingCreate: creator('freeShippingCodeDiscount'),
  discountCodeBxgyCreate: creator('bxgyCodeDiscount'),
  discountCodeBasicUpdate: updater('basicCodeDiscount'),
  discountCodeFreeShippingUpdate: updater('freeShippingCodeDiscount'),
  discountCodeBxgyUpdate: updater('bxgyCodeDiscount'),
  discountCodeDeactivate: ({ id }) => ended(id, discount => {
    if (statusOf(discount) === 'SCHEDULED') discount.startsAt = now();
    if (statusOf(discount) !== 'EXPIRED') discount.endsAt = now();
  }),
  discountCodeActivate: ({ id }) => ended(id, discount => {
    if (statusOf(discount) === 'SCHEDULED') discount.startsAt = now();
    if (statusOf(discount) === 'EXPIRED') discount.endsAt = null;
  }),
  discountCodeDelete({ id }) {
    const node = known('DiscountCodeNode', id);
    if (!node) return { deletedCodeDiscountId: null, ...refuse(missing()) };
    remove(node);
    return accept({ deletedCodeDiscountId: id });
  },
  discountRedeemCodeBulkAdd({ discountId, codes }) {
    const node = known('DiscountCodeNode', discountId);
    if (!node) return { bulkCreation: null, ...refuse(error(['discountId'], 'Code discount does not exist.', 'INVALID')) };
    if (codes.length === 0) return { bulkCreation: null, ...refuse(error(['codes'], "Codes can't be blank", 'BLANK')) };
    if (codes.length > MOST_AT_ONCE) return { bulkCreation: null, ...refuse(error(['codes'], `Codes exceeded the maximum of ${MOST_AT_ONCE}`, 'EXCEEDED_MAX')) };
    const creation = put('DiscountRedeemCodeBulkCreation', {
      codes: codes.map(({ code }) => ({ code, discountRedeemCode: null, errors: [] })), codesCount: codes.length, done: false,
      failedCount: 0, importedCount: 0, discountCode: node.id, pollsLeft: db.settings.redeem.polls,
    });
    return accept({ bulkCreation: creation });
  },
  discountCodeRedeemCodeBulkDelete({ discountId, ids }) {
    const node = known('DiscountCodeNode', discountId);
    if (!node) return { job: null, ...refuse(error(['discountId'], 'Code discount does not exist.', 'INVALID')) };
    const gone = new Set(ids ?? []);
    node.discount.codes = node.discount.codes.filter(one => !gone.has(one.id));
    return accept({ job: put('Job', { done: true }) });
  },
};

const common = {
  status: discount => statusOf(discount),
  codesCount: discount => discount.codes.length,
  shareableUrls: discount => discount.codes.slice(0, 1).map(one => ({ title: discount.title, url: `https://peer.example/discount/${encodeURIComponent(one.code)}` })),
  summary: discount => discount.title,
  asyncUsageCount: discount => discount.codes.reduce((sum, one) => sum + (one.asyncUsageCount ?? 0), 0),
};

export const fields = {
  DiscountCodeNode: { codeDiscount: node => node.discount },
  DiscountNode: { discount: node => node.discount },
  DiscountCodeBasic: { ...common, shortSummary: discount => discount.title, discountClasses: discount => (discount.customerGets.items.__typename === 'AllDiscountItems' ? ['ORDER'] : ['PRODUCT']) },
  DiscountCodeFreeShipping: { ...common, shortSummary: discount => discount.title, discountClasses: () => ['SHIPPING'] },
  DiscountCodeBxgy: { ...common, discountClasses: () => ['PRODUCT'] },
  DiscountCustomers: { customers: context => context.customers },
};

