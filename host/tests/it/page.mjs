// Drives the page of an admin address in a browser, as a person does who looks for why a payment was declined.
// Arguments: the browser (chrome or firefox), its program, the page's URL, a folder for pictures.
import assert from "node:assert/strict";
import { join } from "node:path";
import puppeteer from "puppeteer-core";

const [browserName, executablePath, url, pictures] = process.argv.slice(2);
const chrome = browserName === "chrome";
const browser = await puppeteer.launch({
  browser: browserName,
  executablePath,
  headless: chrome ? "shell" : true,
  args: chrome ? ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"] : [],
});
const page = await browser.newPage();
const said = [];
const asked = [];
page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
page.on("pageerror", (error) => said.push(`error: ${error.message}`));
page.on("request", (request) => asked.push(request.url()));

/** Waits until it holds in the page. */
const holds = (what, look, ...more) =>
  page.waitForFunction(look, { timeout: 30_000, polling: 50 }, ...more)
    .catch(async () => assert.fail(`${what}, which the page does not: ${await page.$eval("body", (body) => body.innerText)}`));
const shows = (text, selector = "main") =>
  holds(`${selector} has "${text}"`, (wanted, where) => [...document.querySelectorAll(where)].some((one) => one.textContent.includes(wanted)), text, selector);
const heading = (text) => shows(text, "main h1");
const rows = (count) => holds(`it has ${count} rows`, (wanted) => document.querySelectorAll("main tbody tr").length === wanted, count);
// Another reading may draw the element again, so finding and clicking it are one step.
const click = (selector, text = "") =>
  holds(`it has ${selector} with "${text}" to be clicked`, (where, wanted) => {
    const found = [...document.querySelectorAll(where)].find((element) => element.textContent.includes(wanted));
    found?.click();
    return found !== undefined;
  }, selector, text);
let picture = 0;
async function look(name) {
  picture += 1;
  for (const scheme of chrome ? ["light", "dark"] : ["light"]) {
    if (chrome) await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await page.screenshot({ path: join(pictures, `${browserName}-${picture}-${name}-${scheme}.png`), fullPage: true });
  }
  const [wide, there] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  assert.ok(wide <= there, `${name} is wider than the window: ${wide} > ${there}`);
}

await page.setViewport({ width: 1280, height: 900 });
await page.goto(url);

// The map: who calls whom, and every service in the table.
await heading("Services");
for (const service of ["catalog", "inventory", "payment", "notifications", "sales", "orders"]) await shows(service, "main .map");
const paints = await page.evaluate(() => performance.getEntriesByType("paint").map(({ name, startTime }) => [name, startTime]));
const paint = Object.fromEntries(paints)["first-contentful-paint"];
await holds("an arrow is busy", () => document.querySelector("main .map path.edge.busy") !== null);
await look("map");

// From the traces to the reason, by keyboard as far as it goes.
await page.keyboard.press("2");
await heading("Traces");
await shows("insufficient-funds");
await page.keyboard.press("/");
await page.keyboard.type("insufficient");
await rows(1);
await look("traces");
await click("main tbody a", "POST /orders");
await shows("Spans", "main h2");
await shows("payment", "main button.span");
await shows("insufficient-funds", "main .detail:not([hidden])");
const spans = await page.$$eval("main button.span", (all) => all.map((one) => one.textContent));
assert.ok(spans.length >= 8, `${spans}`);
assert.ok(spans.some((span) => span.includes("payment") && span.includes("err")), `${spans}`);
assert.ok(spans.some((span) => span.includes("inventory") && span.includes("release")), `${spans}`);
await look("trace");
await page.keyboard.press("Escape");
await heading("Traces");

// A service.
await page.keyboard.press("1");
await heading("Services");
await click("main tbody a", "payment");
await heading("payment");
for (const text of ["Recent errors", "Functions", "Limits and grants", "payments.charge"]) await shows(text);
await look("service");

// A dead letter is edited and replayed.
await page.keyboard.press("3");
await heading("Dead letters");
await shows("order-placed");
const letters = await page.$$eval("main tbody tr", (all) => all.length);
await look("dead-letters");
await click("main tbody a");
await heading("Dead letter of");
await shows("Attempts", "main h2");
await look("dead-letter");
const text = await page.$eval("main textarea", (area) => area.value);
assert.equal(text, '"no order"');
await click("main button:not([disabled])", "Purge");
await click("dialog[open] button", "Cancel");
await click("main button:not([disabled])", "Purge");
await click("dialog[open] button", "Purge");
await heading("Dead letters");
await holds("it has one row less", (before) => document.querySelectorAll("main tbody tr").length === before - 1, letters);

// Runs of orders and gift cards.
await page.keyboard.press("4");
await heading("Runs of pipelines");
await click("main input[type=checkbox]");
await shows("completed");
await look("runs");
await click("main tbody a");
await shows("Input", "main h2");
await shows("attempts");
await look("run");

// What was logged.
await page.keyboard.press("5");
await heading("Logs");
await shows("ada@example.com");
await look("logs");

// Nothing there, and nobody there.
await page.evaluate(() => (location.hash = "#/nowhere"));
await shows("There is nothing here");
await page.evaluate(() => (location.hash = "#/traces/0123456789abcdef0123456789abcdef"));
await holds("it has an error", () => document.querySelector("main [role=alert]") !== null);
const errors = said.splice(0).filter((line) => !line.includes("404"));
assert.deepEqual(errors, []);

// A name that is markup is shown as text.
await page.evaluate(() => (location.hash = "#/traces?service=%3Cimg%20src%3Dx%3E"));
await heading("<img src=x>");
assert.equal(await page.$$eval("main img", (all) => all.length), 0);

const origin = new URL(url).origin;
const foreign = asked.filter((one) => new URL(one).origin !== origin && !one.startsWith("data:"));
assert.deepEqual(foreign, []);
assert.deepEqual(said.filter((line) => !line.includes("404")), []);
console.log(JSON.stringify({ browser: await browser.version(), paint }));
await browser.close();
