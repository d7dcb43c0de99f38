// The echo as a NestJS microservice over NATS, and a NestJS gateway in front of it, written without a
// build step: decorators are applied as the functions that they are.

import 'reflect-metadata';
import { Body, Controller, HttpCode, Inject, Module, Post } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ClientsModule, MessagePattern, Payload, Transport } from '@nestjs/microservices';

const [role, server, pattern] = process.argv.slice(2);
const transport = { transport: Transport.NATS, options: { servers: [server] } };
const logger = ['error', 'warn'];

function decorate(type, method, onMethod, onArgument) {
  onArgument(type.prototype, method, 0);
  for (const decorator of onMethod) {
    decorator(type.prototype, method, Object.getOwnPropertyDescriptor(type.prototype, method));
  }
  Controller()(type);
}

class Echo {
  echo({ item }) {
    return { id: item.id, text: item.text };
  }
}
decorate(Echo, 'echo', [MessagePattern(pattern)], Payload());

class Gateway {
  constructor(client) {
    this.client = client;
  }

  echo(body) {
    return this.client.send(pattern, body);
  }
}
Inject('ECHO')(Gateway, undefined, 0);
decorate(Gateway, 'echo', [HttpCode(200), Post('/')], Body());

class App {}

if (role === 'service') {
  Module({ controllers: [Echo] })(App);
  const app = await NestFactory.createMicroservice(App, { ...transport, logger });
  await app.listen();
  console.log('ready');
} else {
  const clients = ClientsModule.register([{ name: 'ECHO', ...transport }]);
  Module({ imports: [clients], controllers: [Gateway] })(App);
  const app = await NestFactory.create(App, { logger });
  await app.listen(0, '127.0.0.1');
  const { address, port } = app.getHttpServer().address();
  console.log(`ready ${address}:${port}`);
}
