"""Places orders by gRPC with code that is generated from the shop's .proto files.

Arguments: the gateway's address, and the folder of the files.
"""

import sys

import grpc

from by_grpc_protos import generate

address, protos = sys.argv[1:]

generate(protos)

from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from shop.orders.v1 import orders_pb2 as orders
from shop.orders.v1 import orders_pb2_grpc
from shop.inventory.v1 import inventory_pb2 as inventory
from shop.inventory.v1 import inventory_pb2_grpc


def order(number):
    return orders.PlaceRequest(
        customer=orders.Customer(name="Ada", email="ada@example.com"),
        lines=[orders.Line(sku="keyboard", quantity=1)],
        card=orders.Card(number=number, holder="Ada Lovelace", expires="12/30"),
    )


for compression in [grpc.Compression.NoCompression, grpc.Compression.Gzip]:
    with grpc.insecure_channel(address, compression=compression) as channel:
        shop = orders_pb2_grpc.OrdersStub(channel)
        placed = shop.Place(order("4242 4242 4242 4242"), timeout=30)
        assert placed.WhichOneof("result") == "ok", placed
        assert placed.ok.total.currency == "EUR" and placed.ok.total.minor > 0, placed
        declined = shop.Place(order("4000 0000 0000 0002"), timeout=30)
        assert declined.err.WhichOneof("case") == "declined", declined

        for request, code, part in [
            (orders.PlaceRequest(), grpc.StatusCode.INVALID_ARGUMENT, "customer: expected a shop.orders.v1.Customer"),
        ]:
            try:
                raise AssertionError(shop.Place(request))
            except grpc.RpcError as error:
                assert error.code() == code and part in error.details(), error

        stock = inventory_pb2_grpc.StockStub(channel)
        there = stock.OnHand(inventory.OnHandRequest(sku="keyboard"))
        assert there.WhichOneof("result") == "ok", there
        unknown = stock.OnHand(inventory.OnHandRequest(sku="nothing"))
        assert unknown.WhichOneof("result") == "err", unknown

        try:
            raise AssertionError(shop.Place(order("4242 4242 4242 4242"), timeout=0.001))
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error

        # Without the files: what reflection says is the same.
        known = ProtoReflectionDescriptorDatabase(channel)
        assert "shop.orders.v1.Orders" in known.get_services()
        served = DescriptorPool(known).FindServiceByName("shop.orders.v1.Orders")
        place = served.methods_by_name["Place"]
        assert [f.name for f in place.input_type.fields] == ["customer", "lines", "card"]
