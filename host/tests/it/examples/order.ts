// Places an order by a client that is made of the shop's OpenAPI document: `order.mjs http://HOST:PORT`.

import createClient from "openapi-fetch";
import type { paths } from "./shop.js";

declare const process: { argv: string[] };

const client = createClient<paths>({ baseUrl: process.argv[2] });

async function place(number: string) {
    return client.POST("/orders", {
        body: {
            customer: { name: "Ada", email: "ada@example.com" },
            lines: [{ sku: "mouse", quantity: 2 }],
            card: { number, holder: "Ada Lovelace", expires: "12/30" },
        },
    });
}

const placed = await place("4242 4242 4242 4242");
if (!placed.data || !("orderId" in placed.data)) {
    throw new Error(`no order: ${JSON.stringify(placed.error)}`);
}
const { orderId, total } = placed.data;
console.log(placed.response.status, typeof orderId, total.currency);

const declined = await place("4000 0000 0000 0002");
console.log(declined.response.status, JSON.stringify(declined.error));
