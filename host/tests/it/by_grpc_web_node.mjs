// Arguments: the module of the clients, the gateway's address, the file of descriptors.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { calls } from "./by_grpc_web.mjs";

const [clients, address, files] = process.argv.slice(2);
await calls(await import(pathToFileURL(clients)), address, readFileSync(files));
