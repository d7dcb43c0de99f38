// The stock of the shop as a NestJS microservice: the one that a component takes the place of. Decorators are
// applied as the functions that they are, so that nothing has to be built.

import 'reflect-metadata';
import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { MessagePattern, Payload, RpcException, Transport } from '@nestjs/microservices';

const stock = new Map([['keyboard', 40], ['mouse', 7]]);

class Stock {
  onHand(sku) {
    const count = stock.get(sku);
    if (count === undefined) throw new RpcException({ message: 'unknown-sku', tag: 'unknown-sku', val: sku });
    return count;
  }
}
Payload()(Stock.prototype, 'onHand', 0);
MessagePattern({ cmd: 'on-hand' })(Stock.prototype, 'onHand', Object.getOwnPropertyDescriptor(Stock.prototype, 'onHand'));
Controller()(Stock);

class App {}
Module({ controllers: [Stock] })(App);

const servers = [process.env.NATS_SERVER ?? '127.0.0.1:4222'];
const options = { servers, queue: 'inventory', user: process.env.NATS_USER, pass: process.env.NATS_PASSWORD, token: process.env.NATS_TOKEN };
const app = await NestFactory.createMicroservice(App, { transport: Transport.NATS, options, logger: ['error'] });
await app.listen();
console.log('the NestJS service answers');

// Closing alone would lose the requests that have arrived and not begun.
async function stop() {
  await app.unwrap().drain();
  await app.close();
  process.exit(0);
}
process.on('SIGINT', stop);
process.on('SIGTERM', stop);
