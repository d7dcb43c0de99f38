"""Answers the shop's payments by gRPC, with code that is generated from its .proto files.

Argument: the folder of the files. Prints its port.
"""

import os
import subprocess
import sys
import tempfile
from concurrent import futures

import grpc

[protos] = sys.argv[1:]

files = [
    os.path.relpath(os.path.join(folder, name), protos)
    for folder, _, names in os.walk(protos)
    for name in names
]
out = tempfile.mkdtemp()
subprocess.run(
    [sys.executable, "-m", "grpc_tools.protoc", "-I", protos, f"--python_out={out}", f"--grpc_python_out={out}", *files],
    check=True,
)
sys.path.insert(0, out)

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
