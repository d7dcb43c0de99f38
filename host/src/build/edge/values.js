// What stands between a service's source and componentize-qjs, which takes every integer for one of
// 32 bits with a sign, and rounds those of 64: each value is made exact on its way in, and checked on
// its way out. A converter is `{ lift, lower }`, either of which may be left out, or `null` for types
// that pass as they are.

const show = (value) =>
  typeof value === 'string' ? JSON.stringify(value)
    : typeof value === 'bigint' ? `${value}n`
    : Array.isArray(value) ? 'an array'
    : typeof value === 'object' && value !== null ? 'an object'
    : typeof value === 'function' ? 'a function'
    : String(value);

const not = (value, type) => new TypeError(`expected ${type}, got ${show(value)}`);

const outside = (value, type, least, most) =>
  new RangeError(`${show(value)} is no ${type}: it has to be a whole number from ${least} to ${most}`);

function small(type, least, most, lift) {
  return {
    lift,
    lower(value) {
      const number = typeof value === 'bigint' ? Number(value) : value;
      if (typeof number !== 'number') throw not(value, type);
      if (!Number.isInteger(number) || number < least || number > most) {
        throw outside(value, type, least, most);
      }
      // The same 32 bits with a sign, which is how the tool wants them.
      return number | 0;
    },
  };
}

// 64 bits go through the tool as 16 hexadecimal digits: see `exact.rs`.
function big(type, least, most, wrap) {
  return {
    lift: (digits) => wrap(BigInt(`0x${digits}`)),
    lower(value) {
      if (typeof value === 'number') {
        if (!Number.isSafeInteger(value)) {
          throw new RangeError(`${value} is no exact ${type}: write it as a bigint`);
        }
        value = BigInt(value);
      }
      if (typeof value !== 'bigint') throw not(value, `a bigint for ${type}`);
      if (value < least || value > most) throw outside(value, type, least, most);
      return BigInt.asUintN(64, value).toString(16).padStart(16, '0');
    },
  };
}

export const u8 = small('u8', 0, 0xff);
export const u16 = small('u16', 0, 0xffff);
export const u32 = small('u32', 0, 0xffff_ffff, (value) => value >>> 0);
export const s8 = small('s8', -0x80, 0x7f);
export const s16 = small('s16', -0x8000, 0x7fff);
export const s32 = small('s32', -0x8000_0000, 0x7fff_ffff);
export const u64 = big('u64', 0n, (1n << 64n) - 1n, (value) => value);
export const s64 = big('s64', -(1n << 63n), (1n << 63n) - 1n, (value) => BigInt.asIntN(64, value));

const lift = (type, value) => (type?.lift ? type.lift(value) : value);
const lower = (type, value) => (type?.lower ? type.lower(value) : value);

const items = (value) => {
  if (!Array.isArray(value) && !(ArrayBuffer.isView(value) && 'length' in value)) {
    throw not(value, 'an array');
  }
  return value;
};

// Every list but the one of bytes arrives as an array.
export const list = (type) => ({
  lift(value) {
    const array = Array.isArray(value) ? value : Array.from(value);
    if (type?.lift) {
      for (let at = 0; at < array.length; at++) array[at] = type.lift(array[at]);
    }
    return array;
  },
  lower: (value) => Array.from(items(value), (item) => lower(type, item)),
});

export const bytes = {
  lift: (value) => (value instanceof Uint8Array ? value : Uint8Array.from(value)),
  lower(value) {
    if (value instanceof Uint8Array) return value;
    return Uint8Array.from(items(value), (item) => u8.lower(item));
  },
};

const object = (value) => {
  if (typeof value !== 'object' || value === null) throw not(value, 'an object');
  return value;
};

// Each field is `[key, the tool's key, type]`. The small runtime interprets, so every step of a call
// costs: nothing is taken apart here that does not have to be.
export const record = (...fields) => {
  const keys = fields.map(([key]) => key);
  const raws = fields.map(([, raw]) => raw);
  const types = fields.map(([, , type]) => type);
  const renamed = keys.some((key, at) => key !== raws[at]);
  const lifted = keys.filter((_, at) => types[at]?.lift);
  const lifts = types.filter((type) => type?.lift).map((type) => type.lift);
  return {
    lift(value) {
      if (!renamed) {
        // The tool made the object for this call.
        for (let at = 0; at < lifted.length; at++) {
          const key = lifted[at];
          value[key] = lifts[at](value[key]);
        }
        return value;
      }
      const made = {};
      for (let at = 0; at < keys.length; at++) made[keys[at]] = lift(types[at], value[raws[at]]);
      return made;
    },
    lower(value) {
      object(value);
      const made = {};
      for (let at = 0; at < keys.length; at++) {
        const type = types[at];
        const given = value[keys[at]];
        made[raws[at]] = type?.lower ? type.lower(given) : given;
      }
      return made;
    },
  };
};

export const tuple = (...types) => ({
  lift: (value) => types.map((type, at) => lift(type, value[at])),
  lower: (value) => (items(value), types.map((type, at) => lower(type, value[at]))),
});

const absent = (value) => value === null || value === undefined;

export const option = (type) => ({
  lift: (value) => (absent(value) ? value : lift(type, value)),
  lower: (value) => (absent(value) ? value : lower(type, value)),
});

// A variant, a result within a type, and an option of an option.
export const variant = (cases) => {
  const through = (convert) => (value) => {
    const { tag } = object(value);
    if (!Object.hasOwn(cases, tag)) {
      throw not(tag, `one of the cases ${Object.keys(cases).join(', ')}`);
    }
    return 'val' in value ? { tag, val: convert(cases[tag], value.val) } : { tag };
  };
  return { lift: through(lift), lower: through(lower) };
};

const carries = (thrown) =>
  typeof thrown === 'object' && thrown !== null && Object.hasOwn(thrown, 'payload');

// Whether the component is made, so that what a function does is not part of every instance.
let made = false;

export const running = () => made;

/** A function that the service imports. */
export function imported(raw, params, ok, err) {
  return (...given) => {
    if (!made) throw new Error('an imported function cannot be called when the service is built: call it inside functions');
    const values = [];
    for (let at = 0; at < params.length; at++) values[at] = lower(params[at], given[at]);
    let result;
    try {
      result = raw(...values);
    } catch (thrown) {
      if (!err?.lift || !carries(thrown)) throw thrown;
      const error = new Error(thrown.message);
      error.payload = err.lift(thrown.payload);
      throw error;
    }
    return lift(ok, result);
  };
}

/** A class of resources that the service imports: its methods are replaced where they are. */
export function resource(raw, constructor, methods, statics) {
  for (const [name, was, params, ok, err] of methods) {
    const method = raw.prototype[was];
    raw.prototype[name] = function (...given) {
      return imported((...values) => method.apply(this, values), params, ok, err)(...given);
    };
  }
  for (const [name, was, params, ok, err] of statics) {
    const method = raw[was];
    raw[name] = imported((...values) => method.apply(raw, values), params, ok, err);
  }
  if (!constructor) return raw;
  return new Proxy(raw, {
    construct(target, given, made) {
      const values = constructor.map((type, at) => lower(type, given[at]));
      return Reflect.construct(target, values, made === target ? target : made);
    },
  });
}

const problems = [];

/** The names of an object's members, inherited ones included. */
function members(value) {
  const names = new Set();
  for (let at = value; at && at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const name of Object.getOwnPropertyNames(at)) names.add(name);
  }
  names.delete('constructor');
  return [...names];
}

function wrap(target, key, [, , params, ok, err]) {
  return (...given) => {
    for (let at = 0; at < params.length; at++) given[at] = lift(params[at], given[at]);
    let result;
    try {
      result = target[key](...given);
    } catch (thrown) {
      if (!err?.lower || (thrown instanceof Error && !carries(thrown))) throw thrown;
      throw carries(thrown) ? { payload: err.lower(thrown.payload) } : err.lower(thrown);
    }
    if (typeof result?.then === 'function') {
      throw new TypeError(`${key} returned a promise: a function of a service has to return its value`);
    }
    return lower(ok, result);
  };
}

function checked(target, where, key) {
  const value = target[key];
  if (typeof value === 'function' && value.constructor?.name === 'AsyncFunction') {
    problems.push({ ...where, what: 'async' });
  } else if (typeof value !== 'function') {
    const has = members(target);
    problems.push({ ...where, what: key in target ? 'no-function' : 'absent', type: typeof value, has });
  }
}

/**
 * An interface that the service exports: an object with each of its functions, which are `[key, the
 * tool's key, parameters, ok, error]`.
 */
export function exported(service, name, key, functions) {
  const object = service[key];
  const where = { interface: name, export: key };
  if ((typeof object !== 'object' && typeof object !== 'function') || object === null) {
    const has = Object.keys(service);
    problems.push({ ...where, what: key in service ? 'no-object' : 'absent', type: typeof object, has });
    return {};
  }
  const made = {};
  for (const wit of functions) {
    checked(object, { ...where, function: wit[0] }, wit[0]);
    made[wit[1]] = wrap(object, wit[0], wit);
  }
  return made;
}

/** A function of the world itself. */
export function exportedFunction(service, wit) {
  checked(service, { export: wit[0] }, wit[0]);
  return wrap(service, wit[0], wit);
}

/** Fails the build where something that the world exports is not there. */
export function complete() {
  if (problems.length > 0) throw new Error(`wasmbay-exports: ${JSON.stringify(problems)}`);
  made = true;
}
