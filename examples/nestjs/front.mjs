// The shop in front of the stock: GET /stock/SKU asks whoever answers `{ cmd: 'on-hand' }`.

import 'reflect-metadata';
import { Controller, Get, HttpException, Inject, Module, Param } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ClientsModule, Transport } from '@nestjs/microservices';
import { catchError, throwError, timeout } from 'rxjs';

class Front {
  constructor(client) {
    this.client = client;
  }

  onHand(sku) {
    const asked = this.client.send({ cmd: 'on-hand' }, sku).pipe(timeout(5000));
    return asked.pipe(catchError((error) => throwError(() => new HttpException(error, error.tag === 'unknown-sku' ? 404 : 502))));
  }
}
Inject('STOCK')(Front, undefined, 0);
Param('sku')(Front.prototype, 'onHand', 0);
Get('/stock/:sku')(Front.prototype, 'onHand', Object.getOwnPropertyDescriptor(Front.prototype, 'onHand'));
Controller()(Front);

class App {}
const servers = [process.env.NATS_SERVER ?? '127.0.0.1:4222'];
const options = { servers, user: process.env.NATS_USER, pass: process.env.NATS_PASSWORD, token: process.env.NATS_TOKEN };
Module({ imports: [ClientsModule.register([{ name: 'STOCK', transport: Transport.NATS, options }])], controllers: [Front] })(App);

const app = await NestFactory.create(App, { logger: ['error'] });
await app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1');
const { address, port } = app.getHttpServer().address();
console.log(`the front listens on ${address}:${port}`);
