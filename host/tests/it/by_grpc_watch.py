"""Watches the health of a gateway over TLS, and prints each state, then the status with which that ends.

Arguments: the gateway's address, and the file of the authority.
"""

import sys

import grpc

address, authority = sys.argv[1:]

with open(authority, "rb") as file:
    credentials = grpc.ssl_channel_credentials(file.read())
with grpc.secure_channel(address, credentials) as channel:
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
    try:
        # The message is a tag and a number of one byte each.
        for _, state in watch(b""):
            print(state, flush=True)
    except grpc.RpcError as error:
        print(error.code().name, flush=True)
