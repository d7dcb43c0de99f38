"""The shop's inventory without WebAssembly: shop:inventory/stock@1.0.0 over plain NATS and JSON.

    .tools/bin/python-nats examples/shop/native-inventory/inventory.py [nats://127.0.0.1:4222]

Answers for the app "shop" in the queue group of its hosts, so it takes a share of the calls
while a component serves the same interface, and all of them once none does.
"""

import asyncio
import json
import signal
import sys

import nats
import nats.micro

INTERFACE = "shop:inventory/stock@1.0.0"
SUBJECT = "bay.shop.shop.inventory.stock.v1"
WAREHOUSE = "porto"
STOCK = {
    "cable": 0,
    "dock": 6,
    "gift-card": 500,
    "headset": 4,
    "keyboard": 25,
    "lamp": 9,
    "monitor": 7,
    "mouse": 3,
    "webcam": 12,
}


def on_hand(sku: str) -> dict:
    if sku not in STOCK:
        return {"err": {"tag": "unknown-sku", "val": sku}}
    return {"ok": STOCK[sku]}


def reserve(order_id: str, lines: list) -> dict:
    wanted: dict[str, int] = {}
    for line in lines:
        wanted[line["sku"]] = wanted.get(line["sku"], 0) + line["quantity"]
    if unknown := wanted.keys() - STOCK.keys():
        return {"err": {"tag": "unknown-sku", "val": min(unknown)}}
    shortages = [
        {"sku": sku, "wanted": count, "onHand": STOCK[sku]}
        for sku, count in sorted(wanted.items())
        if count > STOCK[sku]
    ]
    if shortages:
        return {"err": {"tag": "insufficient", "val": shortages}}
    return {"ok": {"id": f"res-{order_id}", "warehouse": WAREHOUSE, "lines": lines}}


def release(reservation_id: str) -> dict:
    return {"ok": None}


def restock(order_id: str, lines: list) -> dict:
    if unknown := {line["sku"] for line in lines} - STOCK.keys():
        return {"err": {"tag": "unknown-sku", "val": min(unknown)}}
    return {"ok": None}


# The functions by their names in WIT, with their parameters' names in JSON and their types.
FUNCTIONS = {
    "on-hand": (on_hand, {"sku": str}),
    "reserve": (reserve, {"orderId": str, "lines": list}),
    "release": (release, {"reservationId": str}),
    "restock": (restock, {"orderId": str, "lines": list}),
}


def read(data: bytes, parameters: dict[str, type]) -> list:
    """The arguments in order. A ValueError if they do not fit the signature."""
    given = json.loads(data)
    if not isinstance(given, dict) or given.keys() != parameters.keys():
        raise ValueError(f"expected an object with {', '.join(parameters)}")
    for name, kind in parameters.items():
        if not isinstance(given[name], kind):
            raise ValueError(f"$.{name}: expected a {'string' if kind is str else 'list'}")
    for index, line in enumerate(given.get("lines", [])):
        match line:
            # JSON's true is an int to Python, so the type is compared.
            case {"sku": str(), "quantity": units, **rest} if (
                not rest and type(units) is int and 0 <= units < 2**32
            ):
                pass
            case _:
                raise ValueError(f"$.lines[{index}]: expected a line with sku and quantity")
    return [given[name] for name in parameters]


def handler(function, parameters):
    """Answers each request once: with a result, or with an error and its blame."""

    async def handle(request: nats.micro.Request) -> None:
        try:
            result = function(*read(request.data, parameters))
        except ValueError as error:
            body = {"error": {"code": 400, "message": str(error), "blame": "caller"}}
            await request.respond_error("400", str(error), json.dumps(body).encode())
        else:
            await request.respond(json.dumps(result).encode())

    return handle


async def main(server: str) -> None:
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    client = await nats.connect(server, name="native-inventory", max_reconnect_attempts=-1)
    service = await nats.micro.add_service(client, name="inventory", version="1.0.0", description="native")
    for name, (function, parameters) in FUNCTIONS.items():
        await service.add_endpoint(
            name=f"stock-{name}",
            subject=f"{SUBJECT}.{name}",
            queue_group="bay",
            handler=handler(function, parameters),
            metadata={"interface": INTERFACE, "function": name},
        )
    await client.flush()
    print(f"native-inventory: answering {SUBJECT}.* on {server}", flush=True)
    await stop.wait()
    await client.drain()


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "nats://127.0.0.1:4222"))
