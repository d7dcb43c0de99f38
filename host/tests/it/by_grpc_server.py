"""Answers the shop's payments by gRPC, with code that is generated from its .proto files.

Argument: the folder of the files. Prints its port.
"""

import sys
from concurrent import futures

import grpc

from by_grpc_protos import generate

[protos] = sys.argv[1:]

generate(protos)

from shop.payment.v1 import payment_pb2 as payment
from shop.payment.v1 import payment_pb2_grpc


class Payments(payment_pb2_grpc.PaymentsServicer):
    def Charge(self, request, context):
        assert context.time_remaining() < 60, context.time_remaining()
        assert any(key == "traceparent" for key, _ in context.invocation_metadata())
        if request.card.holder == "Nobody":
            context.abort(grpc.StatusCode.INTERNAL, "no such bank: 100%")
        if request.card.number.startswith("4000"):
            declined = payment.DECLINE_REASON_INSUFFICIENT_FUNDS
            return payment.ChargeResponse(err=payment.PaymentError(declined=declined))
        receipt = payment.Receipt(id="out-1", amount=request.amount, processor="python", card="4242")
        return payment.ChargeResponse(ok=receipt)


server = grpc.server(futures.ThreadPoolExecutor(4))
payment_pb2_grpc.add_PaymentsServicer_to_server(Payments(), server)
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
