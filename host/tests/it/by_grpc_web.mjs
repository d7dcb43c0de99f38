// Calls the gateway of a test by gRPC-Web, in Node or in a page: what it is given is the module of both clients, the
// gateway's address, and the descriptors that reflection has.
const message = (found, wanted) => `${JSON.stringify(found)} is not ${JSON.stringify(wanted)}`;

function same(found, wanted) {
  if (JSON.stringify(found) !== JSON.stringify(wanted)) throw new Error(message(found, wanted));
}

/** What a call is refused with: its code and its message. */
async function refused(call) {
  try {
    await call;
  } catch (error) {
    return [error.code, error.rawMessage ?? error.message];
  }
  throw new Error("the call was answered");
}

export async function calls({ connect, connectWeb, grpcWeb, protobuf, wkt }, address, files) {
  const registry = protobuf.createFileRegistry(protobuf.fromBinary(wkt.FileDescriptorSetSchema, files));
  const transport = connectWeb.createGrpcWebTransport({ baseUrl: `http://${address}` });
  const api = connect.createClient(registry.getService("test.fake.v1.Api"), transport);
  const taken = async (count) => (await api.take({ count }, { timeoutMs: 10_000 })).result;
  same(await taken(3), { case: "ok", value: 5 });
  same((await taken(0)).case, "err");
  same(await refused(api.fail({ code: 429 })), [connect.Code.ResourceExhausted, "as asked"]);
  same((await refused(api.never({}, { timeoutMs: 100 })))[0], connect.Code.DeadlineExceeded);

  const health = connect.createClient(registry.getService("grpc.health.v1.Health"), transport);
  same((await health.check({})).status, 2);
  same((await refused(health.check({ service: "x.Y" })))[0], connect.Code.NotFound);
  for await (const { status } of health.watch({})) {
    same(status, 2);
    break;
  }

  // The other one is for browsers only.
  if (typeof XMLHttpRequest === "undefined") return;
  for (const format of ["text", "binary"]) {
    const client = new grpcWeb.GrpcWebClientBase({ format });
    const call = (method, request) => {
      const bytes = (bytes) => bytes;
      const path = `/test.fake.v1.Api/${method}`;
      const described = new grpcWeb.MethodDescriptor(path, "unary", Uint8Array, Uint8Array, bytes, bytes);
      return client.unaryCall(`http://${address}${path}`, Uint8Array.from(request), {}, described);
    };
    same([...(await call("Take", [8, 3]))], [8, 5]);
    same(await refused(call("Fail", [8, 0xad, 3])), [8, "as asked"]);
    same((await refused(call("Nothing", [])))[0], 12);
  }
}
