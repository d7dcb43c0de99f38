import assert from 'node:assert/strict';
import test from 'node:test';

import { greetings } from './index.js';

test('it greets', () => {
  assert.equal(greetings.greet('you'), 'Hello, you!');
});
