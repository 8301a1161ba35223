// From the input of a discount to the discount as it is read back.

export function discountOf(given, held = null) {
  const made = {};
  const plain = ['title', 'startsAt', 'endsAt', 'usageLimit', 'appliesOncePerCustomer', 'recurringCycleLimit', 'usesPerOrderLimit', 'tags', 'appliesOnOneTimePurchase', 'appliesOnSubscription', 'maximumShippingPrice'];
  for (const name of plain) if (name in given) made[name] = given[name];
  if (!held) {
    made.title ??= given.code;
    made.endsAt ??= null;
    made.usageLimit ??= null;
    made.appliesOncePerCustomer ??= false;
  }
  if (given.combinesWith || !held) {
    const { orderDiscounts = false, productDiscounts = false, shippingDiscounts = false } = given.combinesWith ?? {};
    made.combinesWith = { orderDiscounts, productDiscounts, shippingDiscounts };
  }
  if (given.context || given.customerSelection || !held) made.context = contextOf(given, held);
  if (given.customerGets) made.customerGets = getsOf(given.customerGets, held?.customerGets);
  if (given.customerBuys) made.customerBuys = buysOf(given.customerBuys, held?.customerBuys);
  if ('minimumRequirement' in given || !held) made.minimumRequirement = minimumOf(given.minimumRequirement);
  if (given.destination) made.destinationSelection = destinationOf(given.destination);
  return made;
}

function contextOf({ context, customerSelection }, held) {
  const customers = context?.customers ?? customerSelection?.customers;
  if (customers) {
    const gone = new Set(customers.remove ?? []);
    const before = held?.context?.customers ?? [];
    return { __typename: 'DiscountCustomers', customers: [...new Set([...before, ...(customers.add ?? [])])].filter(one => !gone.has(one)) };
  }
  const segments = context?.customerSegments ?? customerSelection?.customerSegments;
  if (segments) return { __typename: 'DiscountCustomerSegments', segments: segments.add ?? [] };
  if (context?.markets) return { __typename: 'DiscountMarkets', markets: context.markets.add ?? [] };
  return { __typename: 'DiscountBuyerSelectionAll', all: 'ALL' };
}

function itemsOf(items, held) {
  if (!items) return held ?? { __typename: 'AllDiscountItems', allItems: true };
  if (items.all) return { __typename: 'AllDiscountItems', allItems: true };
  if (items.collections) {
    return { __typename: 'DiscountCollections', collections: changed(held?.collections, items.collections.add, items.collections.remove) };
  }
  const given = items.products ?? {};
  return {
    __typename: 'DiscountProducts', products: changed(held?.products, given.productsToAdd, given.productsToRemove),
    productVariants: changed(held?.productVariants, given.productVariantsToAdd, given.productVariantsToRemove),
  };
}

function changed(held = [], added = [], removed = []) {
  const gone = new Set(removed ?? []);
  return [...new Set([...held, ...(added ?? [])])].filter(one => !gone.has(one));
}

function valueOf(value, held) {
  if (!value) return held;
  if (value.percentage != null) return { __typename: 'DiscountPercentage', percentage: value.percentage };
  if (value.discountAmount) {
    return { __typename: 'DiscountAmount', amount: value.discountAmount.amount, appliesOnEachItem: value.discountAmount.appliesOnEachItem ?? false };
  }
  const { quantity, effect } = value.discountOnQuantity;
  return {
    __typename: 'DiscountOnQuantity', quantity: { __typename: 'DiscountQuantity', quantity },
    effect: effect.percentage != null ? { __typename: 'DiscountPercentage', percentage: effect.percentage } : { __typename: 'DiscountAmount', amount: effect.amount, appliesOnEachItem: false },
  };
}

const getsOf = (gets, held) => ({
  items: itemsOf(gets.items, held?.items), value: valueOf(gets.value, held?.value),
  appliesOnOneTimePurchase: gets.appliesOnOneTimePurchase ?? held?.appliesOnOneTimePurchase ?? true,
  appliesOnSubscription: gets.appliesOnSubscription ?? held?.appliesOnSubscription ?? false,
});

const buysOf = (buys, held) => ({
  items: itemsOf(buys.items, held?.items), isOneTimePurchase: buys.isOneTimePurchase ?? true, isSubscription: buys.isSubscription ?? false,
  value: buys.value?.quantity != null ? { __typename: 'DiscountQuantity', quantity: buys.value.quantity }
    : buys.value?.amount != null ? { __typename: 'DiscountPurchaseAmount', amount: buys.value.amount } : held?.value,
});

function minimumOf(given) {
  if (given?.subtotal?.greaterThanOrEqualToSubtotal != null) {
    return { __typename: 'DiscountMinimumSubtotal', greaterThanOrEqualToSubtotal: given.subtotal.greaterThanOrEqualToSubtotal };
  }
  if (given?.quantity?.greaterThanOrEqualToQuantity != null) {
    return { __typename: 'DiscountMinimumQuantity', greaterThanOrEqualToQuantity: given.quantity.greaterThanOrEqualToQuantity };
  }
  return null;
}

const destinationOf = given => (given.countries
  ? { __typename: 'DiscountCountries', countries: given.countries.add ?? [], includeRestOfWorld: given.countries.includeRestOfWorld ?? false }
  : { __typename: 'DiscountCountryAll', allCountries: true });
