// Drives the page of an admin address in a browser, as a person does.
// Arguments: the browser (chrome or firefox), its program, the page's URL, a folder for pictures, what there is to
// be done, and whatever that takes.
import assert from "node:assert/strict";
import { join } from "node:path";
import puppeteer from "puppeteer-core";

const [browserName, executablePath, url, pictures, scene, ...given] = process.argv.slice(2);
const chrome = browserName === "chrome";
// Firefox is asked for one of them when it starts, so it sees some scenes in the dark and some in the light.
const schemes = chrome ? ["light", "dark"] : [["shop", "runs"].includes(scene) ? "light" : "dark"];
const browser = await puppeteer.launch({
  browser: browserName,
  executablePath,
  headless: chrome ? "shell" : true,
  args: chrome ? ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"] : [],
  extraPrefsFirefox: { "layout.css.prefers-color-scheme.content-override": schemes[0] === "dark" ? 0 : 1 },
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
/** Clicks a button that asks, and says yes. */
async function does(action) {
  await click("main button:not([disabled])", action);
  await click("dialog[open] button.danger", "");
}
const go = (hash) => page.evaluate((to) => (location.hash = to), hash);
const focused = (wanted) => holds(`"${wanted}" has the focus`, (text) => document.activeElement?.textContent.includes(text), wanted);
/** Types into the filter, in place of what is there. */
async function filter(text) {
  await page.keyboard.press("/");
  await holds("the filter has the focus", () => document.activeElement?.id === "filter");
  await page.$eval("#filter", (input) => input.select());
  await page.keyboard.type(text);
}

/** Texts that are too faint to be read, as WCAG has it. */
const faint = () => page.evaluate(() => {
  const colour = (text) => text.match(/[\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((one) => one / 255).map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)).reduce((sum, one, index) => sum + one * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const found = colour(getComputedStyle(one).backgroundColor);
      if (found[3] !== 0) return found;
    }
    return [255, 255, 255];
  };
  const found = new Set();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (texts.currentNode.data.trim() === "" || !element.checkVisibility() || element.closest("noscript, option, title, [disabled], .skip")) continue;
    const style = getComputedStyle(element);
    const [text, back] = [light(colour(element instanceof SVGElement ? style.fill : style.color)), light(behind(element))];
    const ratio = (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
    if (ratio < 4.5) found.add(`${ratio.toFixed(2)}: ${element.tagName}.${element.className?.baseVal ?? element.className} "${texts.currentNode.data.trim()}"`);
  }
  return [...found];
});

let picture = 0;
/** Has it pictured, and looks whether all of it can be read. */
async function look(name) {
  picture += 1;
  for (const scheme of schemes) {
    if (chrome) await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    const back = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
    assert.equal(back, scheme === "dark" ? "rgb(20, 23, 28)" : "rgb(255, 255, 255)");
    assert.deepEqual(await faint(), [], `${name}, ${scheme}`);
    await page.screenshot({ path: join(pictures, `${browserName}-${scene}-${picture}-${name}-${scheme}.png`), fullPage: true });
  }
  const [wide, there] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  assert.ok(wide <= there, `${name} is wider than the window: ${wide} > ${there}`);
}

const painted = async () => {
  const paints = await page.evaluate(() => performance.getEntriesByType("paint").map(({ name, startTime }) => [name, startTime]));
  return Object.fromEntries(paints)["first-contentful-paint"];
};

/** Answers of the API that stand for those of the host, by path: a status and a body, or a promise of them. */
const canned = new Map();
async function intercept() {
  await page.setRequestInterception(true);
  page.on("request", async (request) => {
    const answer = canned.get(new URL(request.url()).pathname);
    if (!answer) return void request.continue();
    const [status, body] = await answer;
    await request.respond({ status, contentType: "application/json", body: JSON.stringify(body) });
  });
}

const scenes = {
  /** Somebody looks for why a payment was declined in the shop, and mends what went wrong. */
  async shop(order) {
    // The map: who calls whom, and every service in the table.
    await heading("Services");
    for (const service of ["catalog", "inventory", "payment", "notifications", "sales", "orders"]) await shows(service, "main .map");
    const paint = await painted();
    await holds("an arrow is busy", () => document.querySelector("main .map path.edge.busy") !== null);
    // How far subscribers are behind.
    await shows("Stored events", "main h2");
    await shows("bay_shop_shop_orders_events", "main tbody code");
    await look("map");

    // The keyboard alone: the first stop skips what is above, and a service of the map stays where one is.
    await page.keyboard.press("Tab");
    await focused("Skip to the content");
    await page.keyboard.press("Enter");
    await holds("the content has the focus", () => document.activeElement?.id === "main");
    await holds("the map is where it was", () => document.querySelector("main .map") !== null);
    await page.keyboard.press("Tab");
    for (let stops = 0; stops < 20 && !(await page.evaluate(() => document.activeElement?.id === "node-payment")); stops += 1) await page.keyboard.press("Tab");
    const before = await page.$eval("#state", (state) => state.textContent);
    await holds("it has read again", (then) => !["", "loading…", then].includes(document.getElementById("state").textContent), before);
    assert.equal(await page.evaluate(() => document.activeElement?.id), "node-payment");
    await page.keyboard.press("Enter");
    await heading("payment");
    await page.keyboard.press("Escape");
    await heading("Services");

    // From the traces to the reason.
    await page.keyboard.press("2");
    await heading("Traces");
    await shows("insufficient-funds");
    await filter("insufficient");
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
    const first = () => page.$eval("main button.span", (button) => button.getAttribute("aria-expanded"));
    const expanded = await first();
    await page.$eval("main button.span", (button) => button.focus());
    await page.keyboard.press("Enter");
    assert.notEqual(await first(), expanded);
    await page.keyboard.press("Escape");
    await heading("Traces");

    // A service, and how near to its limits it is.
    await page.keyboard.press("1");
    await heading("Services");
    await click("main tbody a", "payment");
    await heading("payment");
    for (const text of ["Recent errors", "Functions", "Limits and grants", "payments.charge", "How near to its limits", "of 128 MiB", "of 1,024"]) await shows(text);
    const memory = await page.$$eval("main meter", (all) => all.filter((one) => one.getAttribute("aria-label")?.endsWith("128 MiB")).map((one) => one.value));
    assert.ok(memory.length === 1 && memory[0] > 0, `${memory}`);
    await look("service");

    // A dead letter is purged, and another one mended and replayed.
    await page.keyboard.press("3");
    await heading("Dead letters");
    await shows("order-paid");
    const letters = await page.$$eval("main tbody tr", (all) => all.length);
    await look("dead-letters");
    const fewer = (by) => holds(`it has ${by} rows less`, (wanted) => document.querySelectorAll("main tbody tr").length === wanted, letters - by);
    const openFirst = async (service) => {
      await filter(service);
      await holds(`it has those of ${service} alone`, (name) => [...document.querySelectorAll("main tbody tr")].every((row) => row.cells[1].textContent === name), service);
      await click("main tbody a");
      await heading(`Dead letter of ${service}`);
    };
    await openFirst("notifications");
    await shows("Attempts", "main h2");
    await holds("it says why it failed", () => document.querySelector("main tbody tr").cells[3].textContent !== "");
    await look("dead-letter");
    assert.equal(await page.$eval("main textarea", (area) => area.value), '"no order"');
    await click("main button:not([disabled])", "Purge");
    await look("purge");
    await click("dialog[open] button", "Cancel");
    await does("Purge");
    await heading("Dead letters");
    await fewer(1);
    await openFirst("sales");
    await page.$eval("main textarea", (area) => (area.value = "{"));
    await click("main button:not([disabled])", "Save");
    await shows("the arguments do not fit", "main [role=alert]");
    await look("refused");
    await page.$eval("main textarea", (area, text) => (area.value = text), order);
    await click("main button:not([disabled])", "Save");
    await holds("it says that it was edited", () => [...document.querySelectorAll("main dt")].find((one) => one.textContent === "edited")?.nextSibling.textContent === "yes");
    await click("main button:not([disabled])", "Replay");
    await heading("Dead letters");
    await fewer(2);

    // Runs of orders and gift cards; what one has done is undone.
    await page.keyboard.press("4");
    await heading("Runs of pipelines");
    await click("main input[type=checkbox]");
    await shows("completed");
    await look("runs");
    await holds("it opens a run that completed", () => {
      const found = [...document.querySelectorAll("main tbody tr")].find((row) => row.textContent.includes("completed"));
      found?.querySelector("a").click();
      return found !== undefined;
    });
    await shows("Input", "main h2");
    await shows("attempts");
    await look("run");

    // What was logged.
    await page.keyboard.press("5");
    await heading("Logs");
    await shows("ada@example.com");
    await look("logs");

    // Nothing there, and nobody there.
    await go("#/nowhere");
    await shows("There is nothing here");
    await go("#/traces/0123456789abcdef0123456789abcdef");
    await holds("it has an error", () => document.querySelector("main [role=alert]") !== null);

    // A name that is markup is shown as text.
    await go("#/traces?service=%3Cimg%20src%3Dx%3E");
    await heading("<img src=x>");
    assert.equal(await page.$$eval("main img", (all) => all.length), 0);
    return { paint };
  },

  /** Runs that a person deals with: one whose undo has failed, one that waits, and one that has completed. */
  async runs() {
    await go("#/runs?all=true");
    await heading("Runs of pipelines");
    await rows(Number(given[0]));
    const stands = { "undo-failed": "Retry", running: "Cancel run", completed: "Undo" };
    for (const [phase, action] of Object.entries(stands)) {
      await holds(`it has a run that is ${phase}`, (wanted) => {
        const found = [...document.querySelectorAll("main tbody tr")].find((row) => row.cells[3].textContent === wanted);
        found?.querySelector("a").click();
        return found !== undefined;
      }, phase);
      await heading(`checkout: ${phase}`);
      await look(phase);
      const actions = await page.$$eval("main button", (all) => all.map((one) => one.textContent));
      assert.deepEqual(actions, [action]);
      await does(action);
      await heading("checkout: rolled-back");
      await page.keyboard.press("Escape");
      await heading("Runs of pipelines");
    }
    return {};
  },

  /** A hundred services, all of them busy; and answers of a host that has far more. */
  async many() {
    const started = Date.now();
    await holds("a hundred services are in the table", () => document.querySelectorAll("main tbody tr").length === 100);
    const drawn = Date.now() - started;
    const paint = await painted();
    await shows("The 60 busiest of 100; all are in the table.");
    assert.equal(await page.$$eval("main .map g.node", (all) => all.length), 60);
    await holds("arrows are busy", () => document.querySelector("main .map path.edge.busy") !== null);
    await look("map");
    const traffic = chrome ? await measured() : undefined;
    await filter("s7");
    await rows(10);
    await page.keyboard.press("Escape");

    // Thousands of them, and what is slow.
    await intercept();
    const counts = { durations: [0, 3, 4], seconds: 0.1 };
    const many = (count, one) => Array.from({ length: count }, (_, index) => one(index));
    const service = { component: "ab".repeat(32), sinceUs: 1, running: 1, waiting: 0, concurrency: 64, instances: 2, health: { state: "ready" }, calls: counts, imports: [] };
    let answer;
    canned.set("/services", new Promise((resolve) => (answer = resolve)));
    await go("#/logs");
    await heading("Logs");
    await go("#/");
    await shows("loading…", "#state");
    await shows("Loading…", "main");
    assert.equal(await page.$eval("main", (main) => main.getAttribute("aria-busy")), "true");
    await look("loading");
    answer([200, { app: "app", bounds: [0.001, 0.01, 0.1], consumers: [], hosts: [{ host: "a", atUs: 1, services: Object.fromEntries(many(3_000, (index) => [`service-${index}`, service])) }] }]);
    await shows("The first 500 of 3,000; the filter finds the others.");
    await rows(500);
    await shows("The 60 busiest of 3,000");
    await filter("service-299");
    await rows(11);
    await page.keyboard.press("Escape");

    canned.set("/traces", [200, { traces: many(1_000, (index) => ({ trace: `${index}`.padStart(32, "0"), name: `GET /${index}`, service: "gateway", startUs: 1e15 - index, durationUs: index, spans: 2, services: ["gateway", "s00"], error: index % 2 ? "it trapped" : undefined })) }]);
    await page.keyboard.press("2");
    await shows("The first 500 of 1,000");
    await rows(500);
    await look("traces");
    const letter = (index) => ({ id: `${index}`.padStart(16, "0"), service: "s00", function: "test:s00/api.ask@1.0.0", published: "2026-01-01T00:00:00Z", attempts: [{ time: "2026-01-01T00:00:00Z", blame: "guest", error: "no stock" }], leftOut: 2 });
    canned.set("/dead-letters", [200, { deadLetters: many(500, letter), next: "abc" }]);
    await page.keyboard.press("3");
    await rows(500);
    await holds("it says why", () => [...document.querySelectorAll("main tbody tr")].every((row) => row.cells[4].textContent === "no stock"));
    await holds("it leads to the next page", () => document.querySelector('main a[href="#/dead-letters?after=abc"]') !== null);
    canned.set("/dead-letters", [200, { deadLetters: [] }]);
    await shows("None. Events and messages");
    await look("none");

    // What fails is said beside what was read last, and is over when the host is back.
    canned.set("/dead-letters", [503, { error: { code: 503, message: "the streams of the app are gone", blame: "host" } }]);
    await shows("the streams of the app are gone", "main [role=alert]");
    await shows("failed", "#state");
    await shows("None. Events and messages");
    await look("error");
    canned.set("/runs", [500, "no JSON of the kind"]);
    await page.keyboard.press("4");
    await shows("status 500", "main [role=alert]");
    await holds("nothing else is there", () => document.querySelector("main").children.length === 1);
    canned.delete("/runs");
    await heading("Runs of pipelines");
    await shows("No run is open.");
    await holds("it is over", () => document.querySelector("main [role=alert]") === null);
    await look("runs");
    return { paint, drawn, traffic };
  },

  /** The page of a fleet's hosts, one of which asks for a token. */
  async fleet(guarded, token) {
    await holds("both apps can be chosen", () => [...document.querySelectorAll("#app option")].map((one) => one.value).join() === "app,second");
    await shows("1 service on 2 hosts");
    await look("app");
    await click("main tbody a", "guest");
    await heading("guest");
    for (const host of ["a_app", "b_app"]) await holds(`it has host ${host}`, (name) => [...document.querySelectorAll("main tbody code")].some((one) => one.textContent === name), host);
    await look("service");
    await page.select("#app", "second");
    await heading("Services");
    await shows("1 service on 1 host");
    await shows("other", "main tbody a");
    // The choice stays.
    await page.reload();
    await shows("other", "main tbody a");
    assert.equal(await page.$eval("#app", (one) => one.value), "second");

    await page.goto(guarded);
    await shows("This address asks for a token.", "dialog[open]");
    await look("token");
    await page.keyboard.type("not-the-token-of-it");
    await page.keyboard.press("Enter");
    await shows("That is not the token of this address.", "dialog[open]");
    await page.keyboard.type(token);
    await page.keyboard.press("Enter");
    await heading("Services");
    await holds("the dialog is gone", () => !document.getElementById("dialog").open);
    // It is kept for this tab alone, and nowhere that outlives it.
    assert.equal(await page.evaluate(() => localStorage.length + document.cookie.length), 0);
    await page.reload();
    await heading("Services");
    return {};
  },
};

/** Bytes a second that the page takes while nobody touches it, both ways and with headers, over some of its turns. */
async function measured() {
  const session = await page.createCDPSession();
  await session.send("Network.enable");
  let bytes = 0;
  const ends = [];
  const paths = new Map();
  session.on("Network.requestWillBeSent", ({ requestId, request }) => paths.set(requestId, new URL(request.url).pathname));
  session.on("Network.requestWillBeSentExtraInfo", ({ headers }) => (bytes += Object.entries(headers).reduce((sum, [name, value]) => sum + name.length + value.length + 4, 30)));
  session.on("Network.loadingFinished", ({ requestId, encodedDataLength }) => {
    bytes += encodedDataLength;
    if (paths.get(requestId) === "/services") ends.push([Date.now(), bytes]);
  });
  for (const until = Date.now() + 60_000; ends.length < 4; ) {
    assert.ok(Date.now() < until, `${ends}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await session.detach();
  const [[from, before], [to, after]] = [ends[0], ends.at(-1)];
  return Math.round(((after - before) / (to - from)) * 1000);
}

await page.setViewport({ width: 1280, height: 900 });
await page.goto(url);
const found = await scenes[scene](...given);

// Nothing was asked of anybody else, and the browser had nothing to complain of but what was refused.
const origins = [url, ...given].filter((one) => one.startsWith("http:")).map((one) => new URL(one).origin);
assert.deepEqual(asked.filter((one) => !one.startsWith("data:") && !origins.includes(new URL(one).origin)), []);
assert.deepEqual(said.filter((line) => !/status of (400|401|404|500|503)|404|\b40[01]\b/.test(line)), []);
console.log(JSON.stringify({ browser: await browser.version(), ...found }));
await browser.close();
