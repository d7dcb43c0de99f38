// A NestJS microservice and a client of it, without a build step: decorators are applied as the functions that
// they are.
//
//   service SERVER [QUEUE]     handles what `Handlers` has, until it is told to end on stdin
//   ask SERVER REQUESTS        sends requests one after the other and prints each outcome as a line of JSON
//   load SERVER PATTERN TIMES  sends so many, eight at a time, and prints how many failed

import 'reflect-metadata';
import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ClientProxyFactory, EventPattern, MessagePattern, Payload, RpcException, Transport } from '@nestjs/microservices';
import { lastValueFrom, of, timeout, toArray } from 'rxjs';

const [role, server, ...rest] = process.argv.slice(2);
const { host, username, password } = new URL(server.replace('nats:', 'http:'));
const login = password ? { user: username, pass: password } : username ? { token: username } : {};
const nats = (queue) => ({ transport: Transport.NATS, options: { servers: [host], ...login, ...(queue && { queue }) } });

class Handlers {
  ask(n) {
    if (n === 13) throw new RpcException({ code: 7, message: 'thirteen' });
    return n + 1;
  }

  try(n) {
    if (n === 0) throw new RpcException('none left');
    if (n === 2) throw new Error('a secret of the handler');
    return n + 1;
  }

  check(number) {
    return number;
  }

  list() {
    return of('a', 'b', 'c');
  }

  told(text) {
    console.log(`told ${text}`);
  }

  sold({ sku, count }) {
    console.log(`sold ${sku} ${count}`);
  }
}
const handlers = { ask: MessagePattern({ cmd: 'ask' }), try: MessagePattern('nest.try'), check: MessagePattern('check'), list: MessagePattern('list'), told: EventPattern('told'), sold: EventPattern({ cmd: 'sold' }) };
for (const [method, decorator] of Object.entries(handlers)) {
  Payload()(Handlers.prototype, method, 0);
  decorator(Handlers.prototype, method, Object.getOwnPropertyDescriptor(Handlers.prototype, method));
}
Controller()(Handlers);

class App {}
Module({ controllers: [Handlers] })(App);

if (role === 'service') {
  const app = await NestFactory.createMicroservice(App, { ...nats(rest[0]), logger: ['error'] });
  await app.listen();
  console.log('ready');
  process.stdin.on('end', async () => {
    // Without it, closing loses the requests that have arrived and not begun. Version 10 has no way to it.
    await app.unwrap?.().drain();
    await app.close();
    console.log('closed');
    process.exit(0);
  });
  process.stdin.resume();
} else {
  const client = ClientProxyFactory.create(nats());
  await client.connect();
  if (role === 'ask') {
    for (const { pattern, data, emit, all } of JSON.parse(rest[0])) {
      const sent = emit ? client.emit(pattern, data) : client.send(pattern, data);
      const outcome = await lastValueFrom(all ? sent.pipe(toArray()) : sent, { defaultValue: null }).then((value) => ({ value }), (error) => ({ error: error?.message === undefined ? error : { ...error, message: error.message } }));
      console.log(JSON.stringify(outcome));
    }
  } else {
    const [pattern, times] = [rest[0], Number(rest[1])];
    let [sent, failed] = [0, 0];
    const worker = async () => {
      while (sent < times) {
        sent += 1;
        if (sent % 50 === 0) console.log(`sent ${sent}`);
        const mine = sent;
        await lastValueFrom(client.send(pattern, 5).pipe(timeout(5000))).then((value) => { if (value !== 5) failed += 1; }, (error) => { failed += 1; console.error(mine, error); });
      }
    };
    await Promise.all(Array.from({ length: 8 }, worker));
    console.log(`failed ${failed}`);
  }
  await client.close();
}
