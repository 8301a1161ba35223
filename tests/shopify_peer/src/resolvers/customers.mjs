// Customers, and what they agreed to.
import { all, db, milliseconds, now, put, remove, touch } from '../state.mjs';
import { accept, cleanTags, error, known, load, refuse, tagErrors } from './shared.mjs';

const PHONE = /^\+[1-9]\d{6,14}$/;
const EMAIL = /^[^@\s]+@[^@\s]+\.[^@\s]+$/;

export const queries = {
  customer: ({ id }) => load('Customer', id),
  customers: () => all('Customer'),
  customersCount: () => all('Customer').length,
  customerByIdentifier({ identifier: { id, emailAddress, phoneNumber } }) {
    if (id) return load('Customer', id);
    return all('Customer').find(one => (emailAddress ? one.email === emailAddress.toLowerCase() : one.phone === phoneNumber)) ?? null;
  },
};

const at = name => ['input', name];

function consentErrors(customer, address, path, given, said) {
  if (!customer) return [error(at('customerId'), 'Customer not found', 'INVALID')];
  if (!address) return [error(at(path), `A customer must have ${said} to update their marketing consent.`, 'INVALID')];
  if (['NOT_SUBSCRIBED', 'REDACTED', 'INVALID'].includes(given.marketingState)) {
    return [error([...at(path), 'marketingState'], `Cannot specify ${given.marketingState} as a marketing state input`, 'INVALID')];
  }
  if (given.consentUpdatedAt && Date.parse(given.consentUpdatedAt) > milliseconds() + 60_000) {
    return [error([...at(path), 'consentUpdatedAt'], "Consent updated at must not be in the future", 'INVALID')];
  }
  if (given.marketingState === 'PENDING' && given.marketingOptInLevel !== 'CONFIRMED_OPT_IN') {
    return [error([...at(path), 'marketingOptInLevel'], 'Marketing opt in level must be confirmed opt-in for pending consent state', 'INVALID')];
  }
  return [];
}

const consented = given => ({
  marketingState: given.marketingState, marketingOptInLevel: given.marketingOptInLevel ?? 'SINGLE_OPT_IN',
  consentUpdatedAt: given.consentUpdatedAt ?? now(),
});

function customerErrors(given, customer) {
  const errors = [];
  if (!given.firstName && !given.lastName && !given.email && !given.phone && !customer) {
    errors.push(error(null, 'A name, phone number, or email address must be present'));
  }
  if (given.email && !EMAIL.test(given.email)) errors.push(error(['email'], 'Email is invalid'));
  if (given.phone && !PHONE.test(given.phone)) errors.push(error(['phone'], 'Enter a valid phone number'));
  for (const name of ['email', 'phone']) {
    const taken = given[name] && all('Customer').some(one => one.id !== customer?.id && one[name] === given[name].toLowerCase());
    if (taken) errors.push(error([name], `${name === 'email' ? 'Email' : 'Phone'} has already been taken`));
  }
  if (given.tags) errors.push(...tagErrors(cleanTags(given.tags), ['tags']));
  return errors;
}

const cleaned = ({ id: _id, email, tags, metafields: _metafields, addresses: _addresses, ...rest }) => ({
  ...rest, ...(email === undefined ? {} : { email: email?.toLowerCase() ?? null }), ...(tags ? { tags: cleanTags(tags) } : {}),
});

export const mutations = {
  customerEmailMarketingConsentUpdate({ input: { customerId, emailMarketingConsent: given } }) {
    const customer = known('Customer', customerId);
    const errors = consentErrors(customer, customer?.email, 'emailMarketingConsent', given, 'an email address');
    if (errors.length) return { customer: null, ...refuse(errors) };
    return accept({ customer: touch(customer, { emailMarketingConsent: consented(given) }) });
  },
  customerSmsMarketingConsentUpdate({ input: { customerId, smsMarketingConsent: given } }) {
    const customer = known('Customer', customerId);
    const errors = consentErrors(customer, customer?.phone, 'smsMarketingConsent', given, 'a phone number');
    if (errors.length) return { customer: null, ...refuse(errors) };
    return accept({ customer: touch(customer, { smsMarketingConsent: { ...consented(given), consentCollectedFrom: 'OTHER' } }) });
  },
  customerCreate({ input }) {
    const errors = customerErrors(input, null);
    if (errors.length) return { customer: null, ...refuse(errors) };
    return accept({ customer: put('Customer', { tags: [], state: 'DISABLED', locale: 'en', ...cleaned(input) }) });
  },
  customerUpdate({ input }) {
    const customer = known('Customer', input.id);
    if (!customer) return { customer: null, ...refuse(error(['id'], 'Customer does not exist')) };
    const errors = customerErrors(input, customer);
    if (errors.length) return { customer, ...refuse(errors) };
    return accept({ customer: touch(customer, cleaned(input)) });
  },
  customerDelete({ input }) {
    const customer = known('Customer', input.id);
    if (!customer) return { deletedCustomerId: null, ...refuse(error(['id'], "Customer can't be found")) };
    if (all('Order').some(one => one.customer === customer.id)) {
      return { deletedCustomerId: null, ...refuse(error(['id'], "Customer can't be deleted because they have associated orders")) };
    }
    remove(customer);
    for (const [key, one] of db.metafields) if (one.ownerId === customer.id) db.metafields.delete(key);
    return accept({ deletedCustomerId: customer.id });
  },
};

const ordersOf = customer => all('Order').filter(one => one.customer === customer.id);
const consentOf = (customer, name) => customer[name] ?? { marketingState: 'NOT_SUBSCRIBED', marketingOptInLevel: 'SINGLE_OPT_IN', consentUpdatedAt: null };

export const fields = {
  Customer: {
    displayName: one => [one.firstName, one.lastName].filter(Boolean).join(' ') || one.email || one.phone || '',
    defaultEmailAddress(one) {
      if (!one.email) return null;
      const { marketingState, marketingOptInLevel, consentUpdatedAt } = consentOf(one, 'emailMarketingConsent');
      return { emailAddress: one.email, marketingState, marketingOptInLevel, marketingUpdatedAt: consentUpdatedAt, validFormat: EMAIL.test(one.email) };
    },
    defaultPhoneNumber(one) {
      if (!one.phone) return null;
      const { marketingState, marketingOptInLevel, consentUpdatedAt } = consentOf(one, 'smsMarketingConsent');
      return { phoneNumber: one.phone, marketingState, marketingOptInLevel, marketingUpdatedAt: consentUpdatedAt, marketingCollectedFrom: 'OTHER' };
    },
    emailMarketingConsent: one => (one.email ? consentOf(one, 'emailMarketingConsent') : null),
    smsMarketingConsent: one => (one.phone ? consentOf(one, 'smsMarketingConsent') : null),
    orders: ordersOf,
    numberOfOrders: one => String(one.numberOfOrders ?? ordersOf(one).length),
    lastOrder: one => ordersOf(one).at(-1) ?? null,
  },
};

