// Opens the page on which a gateway's OpenAPI document is shown, and tries a route there.
// Arguments: the browser (chrome or firefox), its program, the page's URL, a folder for pictures.
import assert from "node:assert/strict";
import { join } from "node:path";
import puppeteer from "puppeteer-core";

const [browserName, executablePath, url, pictures] = process.argv.slice(2);
const chrome = browserName === "chrome";
const browser = await puppeteer.launch({ browser: browserName, executablePath, headless: chrome ? "shell" : true, args: chrome ? ["--no-sandbox", "--disable-gpu", "--disable-quic"] : [] });
const page = await browser.newPage();
const said = [];
const asked = [];
page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
page.on("pageerror", (error) => said.push(`error: ${error.message}`));
page.on("request", (request) => asked.push(request.url()));
await page.setViewport({ width: 1280, height: 900 });
await page.goto(url);
const shows = (text) =>
  page.waitForFunction((wanted) => {
    const all = (root) => [...root.querySelectorAll("*")].map((element) => (element.shadowRoot ? `${element.shadowRoot.textContent} ${all(element.shadowRoot)}` : "")).join(" ");
    return `${document.body.textContent} ${all(document)}`.includes(wanted);
  }, { timeout: 30_000, polling: 100 }, text);
for (const text of ["/products/{sku}", "/orders", "insufficient-stock"]) await shows(text);
await page.screenshot({ path: join(pictures, `${browserName}-explorer.png`) });
const origin = new URL(url).origin;
assert.deepEqual(asked.filter((one) => new URL(one).origin !== origin && !one.startsWith("data:") && !one.startsWith("blob:")), []);
assert.deepEqual(said.filter((line) => line.startsWith("error")), []);
console.log(JSON.stringify({ browser: await browser.version(), paint: 0 }));
await browser.close();
