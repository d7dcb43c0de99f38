"""Watches the health of a service over TLS, and prints each state, then the status with which that ends.

Arguments: the gateway's address, the file of the authority, and the service, which is empty for all of them.
"""

import sys

import grpc

address, authority, service = sys.argv[1:]

with open(authority, "rb") as file:
    credentials = grpc.ssl_channel_credentials(file.read())
with grpc.secure_channel(address, credentials) as channel:
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
    try:
        # The answer is a tag and a number of one byte each.
        request = bytes([0x0A, len(service)]) + service.encode() if service else b""
        for _, state in watch(request):
            print(state, flush=True)
    except grpc.RpcError as error:
        print(error.code().name, flush=True)
