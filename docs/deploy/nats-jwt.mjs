#!/usr/bin/env node
// Makes an operator, an account and a login of each kind for a fleet, as JWTs: what nats-permissions.conf allows
// each kind, as a scoped signing key of the account. See docs/nats.md. It needs Node.js 20 and nothing else.
//
//   nats-jwt.mjs FOLDER                 makes FOLDER, which is not there yet, with
//
//     nats-jwt.conf    for nats-server: `include` it beside `listen` and `jetstream`
//     KIND.creds       a login of each kind: host, deployer, operator, client
//     keys.json        the seeds of all keys. Keep it off the servers and hosts
//
//   nats-jwt.mjs FOLDER KIND NAME       issues one more login of a kind, as NAME.creds
//
// Who has the seed of a kind can issue logins of that kind and cannot widen what they may; the server needs no change.
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, sign } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const PERMISSIONS = new URL('nats-permissions.conf', import.meta.url);
const KINDS = ['host', 'deployer', 'operator', 'client'];
const [SEED, OPERATOR, ACCOUNT, USER] = [18, 14, 0, 20].map((letter) => letter << 3);
const PKCS8 = Buffer.from('302e020100300506032b657004220420', 'hex');

// RFC 4648, without padding.
function base32(bytes) {
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  let [text, bits, value] = ['', 0, 0];
  for (const byte of bytes) {
    [bits, value] = [bits + 8, (value << 8) | byte];
    for (; bits >= 5; bits -= 5) text += letters[(value >>> (bits - 5)) & 31];
    value &= 31;
  }
  return bits > 0 ? text + letters[(value << (5 - bits)) & 31] : text;
}

function fromBase32(text) {
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  const bytes = [];
  let [bits, value] = [0, 0];
  for (const letter of text) {
    [bits, value] = [bits + 5, ((value << 5) | letters.indexOf(letter)) & 0xfff];
    if (bits >= 8) bytes.push((value >>> (bits -= 8)) & 255);
  }
  return Buffer.from(bytes);
}

// An nkey: prefix, key and CRC-16 (XMODEM), little-endian.
function encoded(prefix, key) {
  const bytes = Buffer.concat([Buffer.from(prefix), key]);
  let crc = 0;
  for (const byte of bytes) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = ((crc << 1) ^ (crc & 0x8000 ? 0x1021 : 0)) & 0xffff;
  }
  return base32(Buffer.concat([bytes, Buffer.from([crc & 255, crc >> 8])]));
}

// The key of a raw seed, or a new one.
function key(kind, raw) {
  raw ??= generateKeyPairSync('ed25519').privateKey.export({ format: 'der', type: 'pkcs8' }).subarray(-32);
  const secret = createPrivateKey({ key: Buffer.concat([PKCS8, raw]), format: 'der', type: 'pkcs8' });
  const open = createPublicKey(secret).export({ format: 'der', type: 'spki' }).subarray(-32);
  return {
    secret,
    id: encoded([kind], open),
    seed: encoded([SEED | (kind >> 5), (kind & 31) << 3], raw),
  };
}

function jwt(by, name, of, nats) {
  const claims = { iat: Math.floor(Date.now() / 1000), iss: by.id, name, sub: of.id, nats: { ...nats, version: 2 } };
  const digest = createHash('sha512-256').update(JSON.stringify(claims)).digest();
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ typ: 'JWT', alg: 'ed25519-nkey' })}.${part({ jti: base32(digest), ...claims })}`;
  return `${signed}.${sign(null, Buffer.from(signed), by.secret).toString('base64url')}`;
}

// The subjects that nats-permissions.conf has for a kind, by list.
function permissions(kind) {
  const lists = { publish: [], deny: [], subscribe: [] };
  const text = readFileSync(PERMISSIONS, 'utf8');
  const [, block] = text.split(`\n${kind.toUpperCase()}_MAY = {\n`);
  let list;
  for (const line of block.split('\n}')[0].split('\n')) {
    if (/^\s*#/.test(line)) continue;
    list = line.match(/^\s*(publish|deny|subscribe)\s*=/)?.[1] ?? list;
    for (const [, subject] of line.matchAll(/"([^"]+)"/g)) lists[list].push(subject);
  }
  return { pub: { allow: lists.publish, deny: lists.deny }, sub: { allow: lists.subscribe } };
}

function creds(role, account, name) {
  const user = key(USER);
  // What it may is the key's to say, so it says nothing of that itself.
  const token = jwt(role, name, user, { type: 'user', issuer_account: account });
  return `-----BEGIN NATS USER JWT-----\n${token}\n------END NATS USER JWT------\n\n` +
    `-----BEGIN USER NKEY SEED-----\n${user.seed}\n------END USER NKEY SEED------\n`;
}

function write(folder, file, text) {
  writeFileSync(join(folder, file), text, { mode: 0o600, flag: 'wx' });
}

function make(folder) {
  mkdirSync(folder, { mode: 0o700 });
  const [operator, operatorSigns] = [key(OPERATOR), key(OPERATOR)];
  const [system, fleet] = [key(ACCOUNT), key(ACCOUNT)];
  const roles = Object.fromEntries(KINDS.map((kind) => [kind, key(ACCOUNT)]));
  const unlimited = { subs: -1, data: -1, payload: -1 };
  const limits = { ...unlimited, imports: -1, exports: -1, wildcards: true, conn: -1, leaf: -1 };
  const storage = { mem_storage: -1, disk_storage: -1, streams: -1, consumer: -1 };
  const scope = ([role, { id }]) =>
    ({ kind: 'user_scope', key: id, role, template: { ...permissions(role), ...unlimited } });
  const accounts = [
    [system, jwt(operatorSigns, 'SYS', system, { type: 'account', limits })],
    [fleet, jwt(operatorSigns, 'fleet', fleet, {
      type: 'account',
      limits: { ...limits, ...storage },
      signing_keys: Object.entries(roles).map(scope),
    })],
  ];
  const token = jwt(operator, 'wasmbay', operator, {
    type: 'operator',
    signing_keys: [operatorSigns.id],
    system_account: system.id,
  });
  write(folder, 'nats-jwt.conf', `operator: ${token}\nsystem_account: ${system.id}\nresolver: MEMORY\n` +
    `resolver_preload: {\n${accounts.map(([{ id }, token]) => `  ${id}: ${token}\n`).join('')}}\n`);
  const seeds = Object.entries({ operator, operatorSigns, system, fleet }).map(([name, { seed }]) => [name, seed]);
  write(folder, 'keys.json', JSON.stringify({
    ...Object.fromEntries(seeds),
    account: fleet.id,
    roles: Object.fromEntries(Object.entries(roles).map(([kind, { seed }]) => [kind, seed])),
  }, null, 2) + '\n');
  for (const kind of KINDS) write(folder, `${kind}.creds`, creds(roles[kind], fleet.id, kind));
  console.log(`made ${folder} with nats-jwt.conf and the logins of ${KINDS.join(', ')}`);
}

function issue(folder, kind, name) {
  const { account, roles } = JSON.parse(readFileSync(join(folder, 'keys.json'), 'utf8'));
  const role = key(ACCOUNT, fromBase32(roles[kind]).subarray(2, 34));
  write(folder, `${name}.creds`, creds(role, account, name));
  console.log(`made ${join(folder, `${name}.creds`)}`);
}

const [folder, kind, name] = process.argv.slice(2);
if (folder && !kind) {
  make(folder);
} else if (folder && KINDS.includes(kind) && /^[\w-]+$/.test(name ?? '')) {
  issue(folder, kind, name);
} else {
  console.error(`usage: nats-jwt.mjs FOLDER [${KINDS.join('|')} NAME]`);
  process.exit(2);
}
