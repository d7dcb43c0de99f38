// The echo as a NestJS microservice over NATS, written without a build step: decorators are applied
// as the functions that they are.

import 'reflect-metadata';
import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { MessagePattern, Payload, Transport } from '@nestjs/microservices';

const [server, pattern] = process.argv.slice(2);

class Echo {
  echo({ item }) {
    return { id: item.id, text: item.text };
  }
}
Payload()(Echo.prototype, 'echo', 0);
MessagePattern(pattern)(Echo.prototype, 'echo', Object.getOwnPropertyDescriptor(Echo.prototype, 'echo'));

Controller()(Echo);

class App {}
Module({ controllers: [Echo] })(App);

const app = await NestFactory.createMicroservice(App, {
  transport: Transport.NATS,
  options: { servers: [server] },
  logger: ['error', 'warn'],
});
await app.listen();
console.log('ready');
