"""The module that the component begins with: the service's own, made ready for being copied.

The service's module is imported when the component is built, and every instance begins as it was
left: generators that took a random seed by then would return the same numbers in all of them. So
they are remembered here, and take another seed when an instance is called for the first time.
"""

import hashlib
import hmac
import importlib
import pkgutil
import random
import sys
import weakref



def _pbkdf2_hmac(hash_name, password, salt, iterations, dklen=None):
    """What hashlib has where Python is made with OpenSSL, and passwords of databases need."""
    if iterations < 1 or (dklen is not None and dklen < 1):
        raise ValueError("iterations and key length have to be more than nothing")
    keyed = hmac.new(password, None, hash_name)
    size = keyed.digest_size
    dklen = size if dklen is None else dklen
    derived = b""
    for block in range(1, -(-dklen // size) + 1):
        step = salt + block.to_bytes(4, "big")
        mixed = 0
        for _ in range(iterations):
            mac = keyed.copy()
            mac.update(step)
            step = mac.digest()
            mixed ^= int.from_bytes(step, "big")
        derived += mixed.to_bytes(size, "big")
    return derived[:dklen]


if not hasattr(hashlib, "pbkdf2_hmac"):
    hashlib.pbkdf2_hmac = _pbkdf2_hmac

_unseeded = weakref.WeakSet([random._inst])
_seed = random.Random.seed


def _remember(self, a=None, version=2):
    _seed(self, a, version)
    if a is None:
        _unseeded.add(self)
    else:
        # One that was seeded on purpose keeps its numbers.
        _unseeded.discard(self)


random.Random.seed = _remember
random.seed = random._inst.seed

import APP as _app  # noqa: E402

# What a package imports only when it is needed would be looked for where no files are. One with very many
# modules has data in them, of which a service needs a few, and all of which would not fit.
for _package in PACKAGES:
    _path = getattr(sys.modules.get(_package), "__path__", [])
    _modules = [module.name for module in pkgutil.walk_packages(_path, _package + ".", lambda _: None)]
    for _name in _modules if len(_modules) <= 256 else []:
        if not {"__main__", "test", "tests"} & set(_name.split(".")):
            try:
                importlib.import_module(_name)
            except Exception:  # It needs what is not there, and so does not work anywhere else.
                pass

from wit_world import exports as _exports  # noqa: E402

_stand_ins = []


def _begin():
    for instance, names in _stand_ins:
        for name in names:
            delattr(instance, name)
    _stand_ins.clear()
    random.Random.seed = _seed
    random.seed = random._inst.seed
    for generator in list(_unseeded):
        generator.seed()
    if uuid := sys.modules.get("uuid"):
        uuid._node = uuid._last_timestamp = None


def _first(instance, name):
    def call(*arguments):
        _begin()
        return getattr(instance, name)(*arguments)

    return call


def _standing_in(exported, names):
    def make():
        instance = exported()
        names_here = [name for name in names if callable(getattr(instance, name, None))]
        for name in names_here:
            setattr(instance, name, _first(instance, name))
        _stand_ins.append((instance, names_here))
        return instance

    return make


for _name, _value in list(vars(_app).items()):
    if _name.startswith("__"):
        continue
    _protocol = getattr(_exports, _name, None)
    if isinstance(_protocol, type) and isinstance(_value, type):
        _functions = [name for name in vars(_protocol) if not name.startswith("_")]
        _value = _standing_in(_value, _functions)
    globals()[_name] = _value
