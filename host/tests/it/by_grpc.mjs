// Places orders by gRPC from Node, which reads the .proto file of the shop's orders when it runs.
// Arguments: the gateway's address, and the folder of the files.
import assert from "node:assert/strict";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [address, protos] = process.argv.slice(2);
const definition = loader.loadSync("shop/orders/v1/orders.proto", {
  includeDirs: [protos],
  longs: String,
  enums: String,
  oneofs: true,
});
const { Orders } = grpc.loadPackageDefinition(definition).shop.orders.v1;
const shop = new Orders(address, grpc.credentials.createInsecure(), {
  "grpc.default_compression_algorithm": grpc.compressionAlgorithms.gzip,
});
const call = (method, request, options = {}) =>
  new Promise((resolve, reject) =>
    shop[method](request, new grpc.Metadata(), options, (error, response) => (error ? reject(error) : resolve(response))),
  );
const order = (number) => ({
  customer: { name: "Ada", email: "ada@example.com" },
  lines: [{ sku: "keyboard", quantity: 1 }],
  card: { number, holder: "Ada Lovelace", expires: "12/30" },
});

const placed = await call("Place", order("4242 4242 4242 4242"));
assert.equal(placed.result, "ok", JSON.stringify(placed));
assert.equal(placed.ok.total.currency, "EUR");
const declined = await call("Place", order("4000 0000 0000 0002"));
assert.equal(declined.err.case, "declined");
const quoted = await call("Quote", { lines: [{ sku: "keyboard", quantity: 2 }] });
assert.ok(BigInt(quoted.ok.minor) > 0n);

await assert.rejects(call("Place", {}), (error) => {
  assert.equal(error.code, grpc.status.INVALID_ARGUMENT);
  assert.match(error.details, /^customer: expected/);
  // What failed and who is in the details, as bytes of a google.rpc.Status.
  const [details] = error.metadata.get("grpc-status-details-bin");
  assert.match(details.toString(), /BAD_ARGUMENTS[^]*shop[^]*blame[^]*caller/);
  return true;
});
await assert.rejects(call("Place", order("4242 4242 4242 4242"), { deadline: Date.now() - 1 }), {
  code: grpc.status.DEADLINE_EXCEEDED,
});
shop.close();
