// The shop's orders: prices, reserves, charges and confirms by calling the other services, wherever
// they run and whatever they are written in. The outcome of an order is an event, and the subscribers
// are not known here. That an order survives its host is a line of the manifest, and no code.
//
// An exported function returns its ok value or throws its error, `{ tag, val }`. An imported one
// throws an Error with that as its `payload`. Any other exception is a defect, and traps.

import * as catalog from 'shop:catalog/products@1.0.0';
import * as inventory from 'shop:inventory/stock@1.0.0';
import * as events from 'shop:orders/events@1.0.0';
import * as payment from 'shop:payment/payments@1.0.0';
import { log } from 'wasi:logging/logging@0.1.0-draft';
import { getRandomBytes } from 'wasi:random/random@0.2.6';

import type { CatalogError } from 'shop:catalog/products@1.0.0';
import type { StockError } from 'shop:inventory/stock@1.0.0';
import type { Confirmation, Customer, OrderError } from 'shop:orders/orders@1.0.0';
import type { Card, PaymentError } from 'shop:payment/payments@1.0.0';
import type { Line, Money } from 'shop:types/types@1.0.0';

type CalleeError = CatalogError | StockError | PaymentError;

// What a line's quantity and a sum of money can hold: a u32 and a u64.
const MAX_QUANTITY = 0xffff_ffff;
const MAX_MINOR = 0xffff_ffff_ffff_ffffn;

export const orders = {
  quote(lines: Line[]): Money {
    return price(merge(lines));
  },

  place(customer: Customer, lines: Line[], card: Card): Confirmation {
    const wanted = merge(lines);
    const total = price(wanted);
    const orderId = newOrderId();
    const order: Order = { orderId, customer: customer.name, email: customer.email, lines: wanted };
    // Nothing is done yet: an order whose events cannot be stored is refused.
    try {
      events.orderPlaced({ ...order, total });
    } catch (error) {
      unavailable(`the order could not be stored: ${storeError(error)}`);
    }
    try {
      return fill(order, total, card);
    } catch (refusal) {
      publish(orderId, () => events.orderRejected({ ...order, reason: reason(refusal) }));
      throw refusal;
    }
  },
} satisfies typeof import('shop:orders/orders@1.0.0');

/** The fields that every event of an order has. */
type Order = { orderId: string; customer: string; email: string; lines: Line[] };

/** Reserves and charges. When the charge fails the host releases the reservation: `undo` of the manifest. */
function fill(order: Order, total: Money, card: Card): Confirmation {
  const { orderId, lines } = order;
  const reservation = ask('inventory', () => inventory.reserve(orderId, lines));
  const receipt = ask('payment', () => payment.charge(orderId, total, card));
  publish(orderId, () => events.orderPaid({ ...order, total }));
  const { id: reservationId, warehouse } = reservation;
  return { orderId, total, reservationId, warehouse, receipt };
}

/** The lines with those of one SKU made one, and without those that want nothing. */
function merge(lines: Line[]): Line[] {
  const quantities = new Map<string, number>();
  for (const { sku, quantity } of lines) {
    const sum = (quantities.get(sku) ?? 0) + quantity;
    if (sum > MAX_QUANTITY) {
      unavailable(`${sku}: no more than ${MAX_QUANTITY} can be ordered at once`);
    }
    quantities.set(sku, sum);
  }
  const merged = [...quantities]
    .filter(([, quantity]) => quantity > 0)
    .map(([sku, quantity]) => ({ sku, quantity }));
  if (merged.length === 0) {
    fail({ tag: 'empty-order' });
  }
  return merged;
}

/** The price of the lines by the catalog. */
function price(lines: Line[]): Money {
  let minor = 0n;
  let currency: string | undefined;
  for (const { sku, quantity } of lines) {
    const each = ask('catalog', () => catalog.get(sku)).price;
    currency ??= each.currency;
    if (each.currency !== currency) {
      unavailable(`catalog: prices in ${currency} and in ${each.currency} cannot be added up`);
    }
    minor += each.minor * BigInt(quantity);
    if (minor > MAX_MINOR) {
      unavailable('catalog: the prices add up to more than can be charged');
    }
  }
  return { minor, currency: currency ?? '' };
}

/** Publishes an event of what cannot be undone any more. */
function publish(orderId: string, event: () => void): void {
  try {
    event();
  } catch (error) {
    log('error', 'orders', `order ${orderId}: its outcome was not published: ${storeError(error)}`);
  }
}

/** Why an event could not be stored: its error is a plain string. */
function storeError(thrown: unknown): string {
  const { payload } = thrown as { payload?: string };
  if (payload === undefined) {
    throw thrown;
  }
  return payload;
}

/** The order's error in words, for the customer. */
function reason(refusal: unknown): string {
  const { tag, val } = refusal as { tag?: string; val?: unknown };
  if (tag === undefined) {
    throw refusal;
  }
  switch (typeof val) {
    case 'undefined':
      return tag;
    case 'string':
      return `${tag}: ${val}`;
    default:
      return `${tag}: ${JSON.stringify(val)}`;
  }
}

/** 64 random bits: Math.random() begins anew with the same number in every fresh instance. */
function newOrderId(): string {
  const digits = [...getRandomBytes(8n)].map((byte) => byte.toString(16).padStart(2, '0'));
  return `ord-${digits.join('')}`;
}

/** Calls another service, and turns the error it answers with into the order's own. */
function ask<T>(service: string, call: () => T): T {
  try {
    return call();
  } catch (thrown) {
    const error = (thrown as { payload?: CalleeError }).payload;
    switch (error?.tag) {
      case 'unknown-sku':
        return fail({ tag: 'unknown-product', val: error.val });
      case 'insufficient':
        return fail({ tag: 'insufficient-stock', val: error.val });
      case 'declined':
      case 'invalid-card':
        return fail(error);
      case 'unavailable':
        return unavailable(`${service}: ${error.val}`);
      default:
        throw thrown;
    }
  }
}

function unavailable(why: string): never {
  return fail({ tag: 'unavailable', val: why });
}

function fail(error: OrderError): never {
  throw error;
}
