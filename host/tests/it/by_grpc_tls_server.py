"""Answers functions that take a number and return it by gRPC over TLS, on 127.0.0.1 and on 127.0.0.2.

Arguments: the certificate and its key. Prints its port.
"""

import sys
from concurrent import futures

import grpc


class Numbers(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method in ["/test.other.v1.Api/Ask", "/test.other.v1.Api/Try"]:
            # A request and a response with one number are the same bytes.
            return grpc.unary_unary_rpc_method_handler(lambda request, context: request)


def read(path):
    with open(path, "rb") as file:
        return file.read()


certificate, key = map(read, sys.argv[1:])
credentials = grpc.ssl_server_credentials([(key, certificate)])
server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Numbers()])
port = server.add_secure_port("127.0.0.1:0", credentials)
assert server.add_secure_port(f"127.0.0.2:{port}", credentials) == port
server.start()
print(port, flush=True)
server.wait_for_termination()
