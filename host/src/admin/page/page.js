// The page of the admin address: it reads the admin API and nothing else. No library, no build.

const main = document.getElementById("main");
const state = document.getElementById("state");
const dialog = document.getElementById("dialog");
const chooser = document.getElementById("app");

// ---- Elements. What comes from the API becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";
const IN_SVG = new Set(["svg", "g", "path", "rect", "text", "line", "polyline", "title", "defs", "marker"]);

function h(tag, attributes = {}, ...children) {
  const svg = IN_SVG.has(tag);
  const element = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== undefined && child !== null && child !== false) element.append(child);
  }
  return element;
}

const anchor = (href, text, attributes = {}) => h("a", { href, ...attributes }, text);
const cell = (content, kind) => h("td", { class: kind }, content);

function table(heads, rows) {
  const head = heads.map(([text, kind]) => h("th", { class: kind, scope: "col" }, text));
  return h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows)));
}

function definitions(pairs) {
  const shown = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return h("dl", {}, shown.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

// ---- Texts.

const plural = (n, one, many = one + "s") => `${n.toLocaleString()} ${n === 1 ? one : many}`;

function duration(seconds) {
  if (seconds === 0) return "0";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${(seconds * 1e3).toPrecision(seconds < 0.1 ? 2 : 3)} ms`;
  if (seconds < 120) return `${seconds.toPrecision(3)} s`;
  return `${Math.round(seconds / 60)} min`;
}

function rate(perSecond) {
  if (perSecond === 0) return "0/s";
  if (perSecond < 10) return `${perSecond.toPrecision(2)}/s`;
  return `${Math.round(perSecond).toLocaleString()}/s`;
}

const clock = (milliseconds) => new Date(milliseconds).toLocaleTimeString();
const moment = (milliseconds) => new Date(milliseconds).toLocaleString();
const ago = (milliseconds) => `${duration(Math.max(0, (Date.now() - milliseconds) / 1000))} ago`;
const short = (name) => name.replace(/[a-z][a-z0-9-]*:[a-z][a-z0-9-]*\/([^@ ]+)(@[^ ]*)?/, "$1");
const pretty = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

// ---- The API.

class Failed extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Where the app's routes are: at the root of an app's own address, below /apps/NAME at that of a host. */
let base = "";

/** Bytes that the requests of this turn took, both ways and with their headers. */
let bytes = 0;

/** What a browser sends with a request, about. */
const ASKED = 600;

const sizeOf = (headers) => [...headers].reduce((sum, [name, value]) => sum + name.length + value.length + 4, 0);

async function request(path, options = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  const token = sessionStorage.getItem("token");
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch {
    throw new Failed(0, "The host cannot be reached.");
  }
  const read = await response.arrayBuffer();
  bytes += ASKED + sizeOf(response.headers) + read.byteLength;
  const text = new TextDecoder().decode(read);
  if (response.status === 401) {
    await askForToken(token !== null);
    return request(path, options);
  }
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    body = undefined;
  }
  if (!response.ok) throw new Failed(response.status, body?.error?.message ?? `status ${response.status}`);
  return { body, etag: response.headers.get("ETag") };
}

const get = async (path) => (await request(base + path)).body;

async function change(method, path, content, etag) {
  const headers = content === undefined ? {} : { "Content-Type": "application/json" };
  if (etag) headers["If-Match"] = etag;
  return (await request(base + path, { method, headers, body: content })).body;
}

function ask(title, content, actions) {
  return new Promise((resolve) => {
    const buttons = actions.map(([text, value, kind]) => h("button", { class: kind, value, type: "submit" }, text));
    const form = h("form", { method: "dialog" }, h("h2", {}, title), content, h("div", { class: "row" }, buttons));
    dialog.replaceChildren(form);
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
    dialog.returnValue = "";
    dialog.showModal();
  });
}

const confirm = async (title, why, action) =>
  (await ask(title, h("p", {}, why), [[action, "yes", "danger"], ["Cancel", "", ""]])) === "yes";

async function askForToken(wrong) {
  const input = h("input", { type: "password", "aria-label": "Token", autocomplete: "off", autofocus: true });
  const why = wrong ? "That is not the token of this address." : "This address asks for a token.";
  await ask("Sign in", h("p", {}, why, h("br"), input), [["Sign in", "yes", ""]]);
  sessionStorage.setItem("token", input.value);
}

// ---- Figures: what happened between two readings.

/** Bounds of the durations' buckets, in seconds. */
let bounds = [];
const readings = [];
const WINDOW = 12_000;

const total = (counts) => counts.durations.reduce((sum, count) => sum + count, 0);
const failed = (counts) => Object.values(counts.errors ?? {}).reduce((sum, count) => sum + count, 0);

function since(now, before) {
  if (!before) return now;
  // It counts from a later start, or a new version that was counted with it is gone.
  if (total(before) > total(now)) return none();
  const durations = now.durations.map((count, index) => count - (before.durations[index] ?? 0));
  const errors = {};
  for (const [kind, count] of Object.entries(now.errors ?? {})) errors[kind] = count - (before.errors?.[kind] ?? 0);
  return { durations, seconds: now.seconds - before.seconds, errors };
}

function add(sum, counts) {
  counts.durations.forEach((count, index) => (sum.durations[index] = (sum.durations[index] ?? 0) + count));
  for (const [kind, count] of Object.entries(counts.errors ?? {})) sum.errors[kind] = (sum.errors[kind] ?? 0) + count;
  sum.seconds += counts.seconds;
}

const none = () => ({ durations: [], seconds: 0, errors: {} });

function quantile(counts, part) {
  const rank = part * total(counts);
  let below = 0;
  let lower = 0;
  for (let index = 0; index < bounds.length; index += 1) {
    const here = counts.durations[index] ?? 0;
    if (here > 0 && below + here >= rank) return lower + (Math.max(0, rank - below) / here) * (bounds[index] - lower);
    below += here;
    lower = bounds[index];
  }
  return total(counts) === 0 ? 0 : lower;
}

/** Everything that is counted, by a key: calls of hosts are added up. */
function flatten(hosts) {
  const counted = new Map();
  const put = (key, counts) => {
    if (!counted.has(key)) counted.set(key, none());
    add(counted.get(key), counts);
  };
  for (const host of hosts) {
    for (const [name, service] of Object.entries(host.services)) {
      put(`service ${name}`, service.calls);
      for (const used of service.imports) put(`import ${name} ${used.function}`, used.calls);
    }
    for (const [name, pipeline] of Object.entries(host.pipelines ?? {})) put(`pipeline ${name}`, pipeline.calls);
    for (const route of host.routes ?? []) put(`route ${route.route}`, route.calls);
  }
  return counted;
}

/** What happened lately, by the same keys, and in which time. */
function lately() {
  const [first, last] = [readings[0], readings.at(-1)];
  const seconds = Math.max(0.001, (last.at - first.at) / 1000);
  const read = (key) => {
    const now = last.counted.get(key) ?? none();
    const recent = first === last ? none() : since(now, first.counted.get(key) ?? none());
    const [calls, errors] = [total(recent), failed(recent)];
    return { calls, errors, rate: calls / seconds, p50: quantile(recent, 0.5), p99: quantile(recent, 0.99), now };
  };
  return read;
}

async function readFigures() {
  const figures = await get("/services");
  bounds = figures.bounds;
  const at = performance.now();
  readings.push({ at, counted: flatten(figures.hosts) });
  while (readings.length > 2 && at - readings[1].at > WINDOW) readings.shift();
  return figures;
}

// ---- The map.

const NODE = { width: 168, height: 46, across: 270, down: 78, margin: 28 };
const MOST = 60;

function graphOf(hosts, read) {
  const nodes = new Map();
  const edges = new Map();
  const node = (name, kind) => nodes.set(name, nodes.get(name) ?? { name, kind, hosts: 0 });
  const edge = (from, to, event, key) => {
    const id = `${from} ${to} ${event}`;
    const known = edges.get(id) ?? { from, to, event, keys: new Set() };
    known.keys.add(key);
    edges.set(id, known);
  };
  for (const host of hosts) {
    for (const [name, service] of Object.entries(host.services)) {
      node(name, "service");
      nodes.get(name).hosts += 1;
      for (const used of service.imports)
        for (const to of used.to) edge(name, to, used.event === true, `import ${name} ${used.function}`);
    }
    for (const [name, pipeline] of Object.entries(host.pipelines ?? {})) {
      node(name, "pipeline");
      for (const to of pipeline.to) edge(name, to, false, `pipeline ${name}`);
    }
    for (const route of host.routes ?? [])
      for (const to of route.to) {
        node("gateway", "gateway");
        edge("gateway", to, false, `route ${route.route}`);
      }
  }
  for (const { from, to } of [...edges.values()]) for (const name of [from, to]) node(name, "service");
  const figures = [...edges.values()].map((one) => {
    const parts = [...one.keys].map(read);
    const busiest = parts.reduce((most, part) => (part.calls > most.calls ? part : most), parts[0]);
    const sum = (of) => parts.reduce((total_, part) => total_ + part[of], 0);
    const now = parts.reduce((total_, part) => total_ + total(part.now), 0);
    return { ...one, rate: sum("rate"), calls: sum("calls"), errors: sum("errors"), p99: busiest.p99, ever: now };
  });
  for (const one of nodes.values()) one.figures = read(`${one.kind === "pipeline" ? "pipeline" : "service"} ${one.name}`);
  return { nodes: [...nodes.values()], edges: figures };
}

/** Columns: who is called stands right of who calls, as far as there is no circle. An edge that passes
    columns has a free place in each, so that it goes behind no node. */
function layOut({ nodes, edges }) {
  const layer = new Map(nodes.map((node) => [node.name, 0]));
  const calls = edges.filter((edge) => edge.from !== edge.to);
  for (let round = 0; round < Math.min(nodes.length, 12); round += 1)
    for (const { from, to } of calls) {
      const wanted = layer.get(from) + 1;
      if (wanted > layer.get(to) && wanted < 12) layer.set(to, wanted);
    }
  const levels = [...new Set(layer.values())].sort((one, other) => one - other);
  const columns = levels.map((level) => nodes.filter((node) => layer.get(node.name) === level).sort((one, other) => one.name.localeCompare(other.name)));
  const near = new Map();
  const join = (one, other) => {
    near.set(one, [...(near.get(one) ?? []), other]);
    near.set(other, [...(near.get(other) ?? []), one]);
  };
  const at = new Map(nodes.map((node) => [node.name, node]));
  for (const edge of calls) {
    edge.by = [];
    let last = at.get(edge.from);
    const [from, to] = [edge.from, edge.to].map((name) => levels.indexOf(layer.get(name)));
    for (let x = from + 1; x < to; x += 1) {
      const place = { lane: true, name: `${edge.from} ${edge.to}` };
      columns[x].push(place);
      edge.by.push(place);
      join(last, place);
      last = place;
    }
    join(last, at.get(edge.to));
  }
  const order = new Map();
  const settle = () => columns.forEach((column) => column.forEach((node, index) => order.set(node, index - column.length / 2)));
  settle();
  for (let round = 0; round < 6; round += 1)
    for (const column of columns) {
      const wanted = new Map(column.map((node) => {
        const others = near.get(node) ?? [node];
        return [node, others.reduce((sum, other) => sum + order.get(other), 0) / others.length];
      }));
      column.sort((one, other) => wanted.get(one) - wanted.get(other) || one.name.localeCompare(other.name));
      settle();
    }
  const tallest = Math.max(...columns.map((column) => column.length));
  columns.forEach((column, x) =>
    column.forEach((node, y) => {
      node.x = NODE.margin + x * NODE.across;
      node.y = NODE.margin + (y + (tallest - column.length) / 2) * NODE.down;
    }),
  );
  return {
    width: NODE.margin * 2 + (columns.length - 1) * NODE.across + NODE.width,
    height: NODE.margin * 2 + (tallest - 1) * NODE.down + NODE.height,
  };
}

function drawEdge(edge, at) {
  const [from, to] = [at.get(edge.from), at.get(edge.to)];
  const middle = (node) => node.y + NODE.height / 2;
  const points = [[from.x + NODE.width, middle(from)]];
  for (const place of edge.by ?? []) points.push([place.x, middle(place)], [place.x + NODE.width, middle(place)]);
  points.push([to.x - 4, middle(to)]);
  let d = `M${points[0].join(" ")}`;
  for (let index = 1; index < points.length; index += 1) {
    const [[x1, y1], [x2, y2]] = [points[index - 1], points[index]];
    const bend = Math.max(40, Math.abs(x2 - x1) / 2);
    d += y1 === y2 && x2 > x1 ? ` L${x2} ${y2}` : ` C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
  }
  // Near the end, where edges from one node are apart.
  const [[x1, y1], [x2, y2]] = points.slice(-2);
  const [x, y] = [x1 + (x2 - x1) * 0.64, y1 + (y2 - y1) * 0.76];
  const kind = edge.errors > 0 ? "failing" : edge.calls > 0 ? "busy" : "";
  const path = h("path", {
    class: `edge ${edge.event ? "event" : ""} ${kind}`,
    d,
    "stroke-width": Math.min(6, 1 + Math.log10(1 + edge.rate) * 1.6),
    "marker-end": kind === "failing" ? "url(#head-bad)" : "url(#head)",
  });
  const told = `${edge.from} ${edge.event ? "publishes to" : "calls"} ${edge.to}: ${rate(edge.rate)}, ${plural(edge.errors, "error")} lately, p99 ${duration(edge.p99)}; ${edge.ever.toLocaleString()} since the start`;
  path.append(h("title", {}, told));
  if (edge.calls === 0) return [path];
  const label = h("text", { class: "halo small", x, y: y - 3, "text-anchor": "middle" }, `${rate(edge.rate)} · ${duration(edge.p99)}`);
  const errors = edge.errors > 0 && h("text", { class: "halo failing-label", x, y: y + 10, "text-anchor": "middle" }, plural(edge.errors, "error"));
  return [path, label, errors].filter(Boolean);
}

function drawNode(node) {
  const { figures } = node;
  const failing = figures.errors > 0;
  const what = node.kind === "gateway" ? "HTTP requests" : figures.calls === 0 ? "idle" : `${rate(figures.rate)} · p99 ${duration(figures.p99)}`;
  const label = `${node.name}: ${what}${failing ? `, ${plural(figures.errors, "error")}` : ""}`;
  const href = node.kind === "service" ? `#/services/${node.name}` : node.kind === "pipeline" ? "#/runs" : "#/traces?service=gateway";
  const group = h(
    "g",
    { class: `node ${failing ? "failing" : ""} ${figures.calls === 0 && node.kind !== "gateway" ? "quietly" : ""}`, tabindex: 0, id: `node-${node.name}`, role: "link", "aria-label": label, transform: `translate(${node.x} ${node.y})` },
    h("title", {}, label),
    h("rect", { width: NODE.width, height: NODE.height, rx: node.kind === "pipeline" ? 20 : 6 }),
    h("text", { x: 12, y: 19 }, node.name.length > 21 ? `${node.name.slice(0, 20)}…` : node.name),
    h("text", { class: failing ? "failing-label" : "small", x: 12, y: 36 }, failing ? `${plural(figures.errors, "error")} · ${rate(figures.rate)}` : what),
  );
  const go = () => (location.hash = href);
  group.addEventListener("click", go);
  group.addEventListener("keydown", (event) => event.key === "Enter" && go());
  return group;
}

function draw(hosts, read) {
  let graph = graphOf(hosts, read);
  const all = graph.nodes.length;
  if (all > MOST) {
    const busiest = [...graph.nodes].sort((one, other) => other.figures.calls - one.figures.calls || total(other.figures.now) - total(one.figures.now));
    const kept = new Set(busiest.slice(0, MOST).map((node) => node.name));
    graph = { nodes: graph.nodes.filter((node) => kept.has(node.name)), edges: graph.edges.filter((edge) => kept.has(edge.from) && kept.has(edge.to)) };
  }
  const size = layOut(graph);
  const at = new Map(graph.nodes.map((node) => [node.name, node]));
  const head = (id, colour) => h("marker", { id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto" }, h("path", { d: "M0 0 8 4 0 8z", fill: colour }));
  const svg = h(
    "svg",
    { width: size.width, height: size.height, role: "group", "aria-label": "Map of the services" },
    h("defs", {}, head("head", "var(--quiet)"), head("head-bad", "var(--bad)")),
    graph.edges.map((edge) => drawEdge(edge, at)),
    graph.nodes.map(drawNode),
  );
  const note = all > MOST && h("p", { class: "quiet" }, `The ${MOST} busiest of ${all.toLocaleString()}; all are in the table.`);
  return [note, h("div", { class: "map" }, svg)];
}

// ---- Views. Each draws what it read; `live` reads again.

let filter = "";
const filterInput = (label) =>
  h("input", { type: "search", id: "filter", placeholder: label, "aria-label": label, value: filter, oninput: (event) => { filter = event.target.value.toLowerCase(); again(0); } });

const ROWS = 500;
function bounded(rows, draw_) {
  const shown = rows.slice(0, ROWS).map(draw_);
  return [shown, rows.length > ROWS ? h("p", { class: "quiet" }, `The first ${ROWS} of ${rows.length.toLocaleString()}; the filter finds the others.`) : null];
}

const WORST = ["ready", "degraded", "failing"];

/** How a service fares on all hosts together: the worst of them, with every reason. */
function healthOf(all) {
  const known = all.filter(Boolean);
  const worst = Math.max(0, ...known.map((health) => WORST.indexOf(health.state)));
  return { state: WORST[worst], why: [...new Set(known.flatMap((health) => health.why ?? []))] };
}

const healthShown = ({ state: word, why }) => h("span", { class: { ready: "good", degraded: "warn", failing: "bad" }[word], title: why.join("\n") }, word);

/** The breakers of all hosts by wire. */
function breakersOf(hosts) {
  const wires = new Map();
  for (const host of hosts)
    for (const [wire, breaker] of Object.entries(host.breakers ?? {})) {
      const known = wires.get(wire) ?? { wire, closed: 0, open: 0, trying: 0, opened: 0, refused: 0, fallbacks: 0 };
      known[breaker.state] += 1;
      for (const of of ["opened", "refused", "fallbacks"]) known[of] += breaker[of];
      wires.set(wire, known);
    }
  return [...wires.values()].sort((one, other) => one.wire.localeCompare(other.wire));
}

function breakerTable(hosts) {
  const breakers = breakersOf(hosts);
  if (breakers.length === 0) return null;
  const stands = ({ open: opened, trying, closed }) => (opened > 0 ? h("span", { class: "bad" }, `open on ${plural(opened, "host")}`) : trying > 0 ? h("span", { class: "warn" }, "trying") : h("span", { class: "good" }, `closed on ${plural(closed, "host")}`));
  return [h("h2", {}, "Circuit breakers"), table([["Wire"], ["Stands"], ["Opened", "n"], ["Not sent", "n"], ["By fallback", "n"]], breakers.map((one) => h("tr", {}, cell(h("code", {}, one.wire), "wide"), cell(stands(one)), cell(one.opened.toLocaleString(), "n"), cell(one.refused.toLocaleString(), "n"), cell(one.fallbacks.toLocaleString(), "n"))))];
}

/** How far the subscribers to stored events are behind. */
function lagTable(consumers, pipelines = new Set()) {
  if (consumers.length === 0) return null;
  const behind = (count) => (count > 0 ? h("span", { class: "warn" }, count.toLocaleString()) : "0");
  const [rows, more] = bounded(consumers, (one) => h("tr", {}, cell(anchor(pipelines.has(one.service) ? "#/runs" : `#/services/${one.service}`, one.service)), cell(h("code", {}, one.stream), "wide"), cell(h("code", {}, one.consumer)), cell(behind(one.pending), "n"), cell(one.inFlight.toLocaleString(), "n"), cell(behind(one.redelivered), "n")));
  return [h("h2", {}, "Stored events"), table([["Subscriber"], ["Stream"], ["Consumer"], ["Pending", "n"], ["In flight", "n"], ["Redelivered", "n"]], rows), more];
}

async function viewMap() {
  const { hosts, consumers } = await readFigures();
  const read = lately();
  const services = new Map();
  for (const host of hosts)
    for (const [name, service] of Object.entries(host.services)) {
      const known = services.get(name) ?? { name, on: [], running: 0, concurrency: 0, waiting: 0, instances: 0, health: [], versions: new Set() };
      known.on.push(host.host);
      known.health.push(service.health);
      for (const of of ["running", "concurrency", "waiting", "instances"]) known[of] += service[of];
      known.versions.add(service.component);
      services.set(name, known);
    }
  if (services.size === 0) return h("div", { class: "empty" }, "No service runs yet.");
  const wanted = [...services.values()].filter((service) => service.name.includes(filter)).sort((one, other) => one.name.localeCompare(other.name));
  const [rows, more] = bounded(wanted, (service) => {
    const figures = read(`service ${service.name}`);
    return h("tr", {},
      cell(anchor(`#/services/${service.name}`, service.name)),
      cell(healthShown(healthOf(service.health))),
      cell(rate(figures.rate), "n"),
      cell(figures.errors > 0 ? anchor(`#/traces?errors=true&service=${service.name}`, `${figures.errors}`, { class: "bad" }) : "0", "n"),
      cell(duration(figures.p50), "n"), cell(duration(figures.p99), "n"),
      cell([h("meter", { min: 0, max: service.concurrency, value: service.running, high: service.concurrency * 0.8, low: service.concurrency * 0.5, optimum: 0 }), ` ${service.running}/${service.concurrency}`], "n"),
      cell(`${service.waiting}`, "n"), cell(`${service.instances}`, "n"), cell(`${service.on.length}`, "n"),
      cell(service.versions.size > 1 ? h("span", { class: "warn" }, `${service.versions.size} versions`) : h("code", {}, [...service.versions][0].slice(0, 12))));
  });
  const busy = readings.length > 1 ? `the last ${Math.round((readings.at(-1).at - readings[0].at) / 1000)} s` : "soon";
  return [
    h("h1", {}, "Services"),
    draw(hosts, read),
    h("div", { class: "row" }, filterInput("Filter services"), h("span", { class: "quiet" }, `${plural(services.size, "service")} on ${plural(hosts.length, "host")}; figures of ${busy}. Dashed: events.`)),
    table([["Service"], ["Health"], ["Calls", "n"], ["Errors", "n"], ["p50", "n"], ["p99", "n"], ["Running", "n"], ["Waiting", "n"], ["Instances", "n"], ["Hosts", "n"], ["Component"]], rows),
    more,
    breakerTable(hosts),
    lagTable(consumers.filter((one) => one.service.includes(filter)), new Set(hosts.flatMap((host) => Object.keys(host.pipelines ?? {})))),
  ];
}

function spark(values, kind) {
  const most = Math.max(...values, 1e-9);
  const points = values.map((value, index) => `${(index / Math.max(1, values.length - 1)) * 300},${58 - (value / most) * 54}`);
  return h("svg", { viewBox: "0 0 300 60", preserveAspectRatio: "none", "aria-hidden": true }, h("line", { class: "axis", x1: 0, x2: 300, y1: 59, y2: 59 }), h("polyline", { class: `spark ${kind ?? ""}`, points: points.join(" ") }));
}

function chart(title, values, last, kind) {
  const content = values.some((value) => value > 0) ? spark(values, kind) : h("p", { class: "quiet" }, "Nothing yet.");
  return h("div", { class: "chart" }, h("div", {}, title, " ", h("span", { class: "quiet" }, last)), content);
}

/** The intervals of all hosts, added up by their ten seconds. */
function hourOf(hosts) {
  const hour = new Map();
  for (const host of hosts)
    for (const { at, calls, errors, p99 } of host.history) {
      const slot = Math.round(at / 10);
      const known = hour.get(slot) ?? { at: slot * 10, calls: 0, errors: 0, p99: 0 };
      hour.set(slot, { ...known, calls: known.calls + calls, errors: known.errors + errors, p99: Math.max(known.p99, p99) });
    }
  return [...hour.values()].sort((one, other) => one.at - other.at);
}

const size = (bytes_) => (bytes_ < 1 << 20 ? `${Math.round(bytes_ / 1024)} KiB` : `${(bytes_ / (1 << 20)).toPrecision(3)} MiB`);

/** How near a service is to its limits, on each host. */
function nearTable(hosts) {
  const near = ({ used, limit }, text = (count) => count.toLocaleString()) => cell([h("meter", { min: 0, max: Math.max(1, limit), value: used, low: limit * 0.5, high: limit * 0.8, optimum: 0, "aria-label": `${text(used)} of ${text(limit)}` }), h("br"), `${text(used)} of ${text(limit)}`], "n");
  const known = hosts.filter(({ usage }) => usage);
  if (known.length === 0) return null;
  return [h("h2", {}, "How near to its limits"),
    table([["Host"], ["Calls under way", "n"], ["Calls that wait", "n"], ["Most memory of an instance", "n"], ["Instances, of the host's", "n"]], known.map(({ host, usage }) => h("tr", {}, cell(h("code", {}, host)), near(usage.concurrency), near(usage.queue), near(usage.memory, size), near(usage.instances))))];
}

async function viewService(name) {
  const [{ hosts, bounds: read, consumers }, { traces }, records] = await Promise.all([get(`/services/${name}`), get(`/traces?errors=true&limit=20&service=${name}`), readLogs(`service=${name}&limit=20`)]);
  bounds = read;
  const functions = new Map();
  const imports = new Map();
  for (const host of hosts) {
    for (const [function_, counts] of Object.entries(host.functions)) {
      if (!functions.has(function_)) functions.set(function_, none());
      add(functions.get(function_), counts);
    }
    for (const used of host.service.imports) {
      const known = imports.get(used.function) ?? { ...used, sum: none() };
      add(known.sum, used.calls);
      imports.set(used.function, known);
    }
  }
  const hour = hourOf(hosts);
  const last = hour.at(-1) ?? { calls: 0, errors: 0, p99: 0 };
  const errorsOf = (counts) => (failed(counts) === 0 ? "0" : h("span", { class: "bad" }, Object.entries(counts.errors).map(([kind, count]) => `${count} × ${kind}`).join(", ")));
  const figures = (counts) => [cell(total(counts).toLocaleString(), "n"), cell(errorsOf(counts), "n"), cell(duration(quantile(counts, 0.5)), "n"), cell(duration(quantile(counts, 0.99)), "n")];
  const { manifest } = hosts[0];
  const health = healthOf(hosts.map((host) => host.service.health));
  const grants = Object.entries(manifest.grants).filter(([, granted]) => (Array.isArray(granted) ? granted.length > 0 : true));
  return [
    h("h1", {}, name),
    health.state !== "ready" && h("p", {}, healthShown(health), ": ", health.why.join("; ")),
    h("div", { class: "charts" },
      chart("Calls", hour.map((one) => one.calls / 10), rate(last.calls / 10)),
      chart("Errors", hour.map((one) => one.errors / 10), rate(last.errors / 10), "bad"),
      chart("p99", hour.map((one) => one.p99), duration(last.p99))),
    h("p", { class: "quiet" }, "The last hour, in intervals of ten seconds."),
    h("h2", {}, "Recent errors"), errorTable(traces, "No error of the last traces has passed through it."),
    h("h2", {}, "Last log records"), logTable(records, "Neither the service nor the host has logged anything of it within ten minutes."), h("p", {}, anchor(`#/logs?service=${name}`, "all of its records")),
    nearTable(hosts), lagTable(consumers),
    h("h2", {}, "Functions"),
    table([["Function"], ["Calls", "n"], ["Errors", "n"], ["p50", "n"], ["p99", "n"]], [...functions].map(([function_, counts]) => h("tr", {}, cell(h("code", {}, function_), "wide"), figures(counts)))),
    imports.size > 0 && [h("h2", {}, "What it calls and publishes"),
      table([["Function"], ["To"], ["Calls", "n"], ["Errors", "n"], ["p50", "n"], ["p99", "n"]], [...imports.values()].map((used) => h("tr", {}, cell([h("code", {}, used.function), used.event ? " (event)" : ""], "wide"), cell(used.to.length === 0 ? h("span", { class: "quiet" }, "outside the app") : used.to.map((to, index) => [index > 0 ? ", " : "", anchor(`#/services/${to}`, to)])), figures(used.sum))))],
    h("h2", {}, "Hosts"),
    table([["Host"], ["Component"], ["Since"], ["Running", "n"], ["Waiting", "n"], ["Instances", "n"], ["Calls", "n"]], hosts.map(({ host, service }) => h("tr", {}, cell(h("code", {}, host)), cell(h("code", { title: service.component }, service.component.slice(0, 12))), cell(moment(service.sinceUs / 1000)), cell(`${service.running}/${service.concurrency}`, "n"), cell(`${service.waiting}`, "n"), cell(`${service.instances}`, "n"), cell(total(service.calls).toLocaleString(), "n")))),
    h("h2", {}, "Limits and grants"),
    definitions([...Object.entries(manifest.limits).map(([limit, value]) => [limit, String(value)]), ["reuse", `${manifest.reuse}`], ...grants.map(([grant, value]) => [`grant: ${grant}`, h("code", {}, JSON.stringify(value))]), ["config", manifest.config.join(", ")], ["env", manifest.env.join(", ")]]),
  ];
}

function outcome(trace) {
  const why = [trace.error, trace.refusal].filter(Boolean).join(": ");
  if (trace.error) return h("span", { class: "bad" }, why);
  if (trace.refusal) return h("span", { class: "warn" }, trace.refusal);
  return h("span", { class: "good" }, "ok");
}

const errorTable = (traces, otherwise) =>
  traces.length === 0
    ? h("p", { class: "quiet" }, otherwise)
    : table([["When"], ["Request"], ["Why"]], traces.map((trace) => h("tr", {}, cell(clock(trace.startUs / 1000)), cell(anchor(`#/traces/${trace.trace}`, trace.name)), cell(outcome(trace), "wide mono"))));

async function viewTraces(query) {
  const { traces } = await get(`/traces?limit=1000${query.get("errors") ? "&errors=true" : ""}${query.get("service") ? `&service=${encodeURIComponent(query.get("service"))}` : ""}`);
  const errors = h("input", { type: "checkbox", id: "errors", checked: query.get("errors") === "true", onchange: (event) => { if (event.target.checked) query.set("errors", "true"); else query.delete("errors"); location.hash = `#/traces?${query}`; } });
  const wanted = traces.filter((trace) => `${trace.name} ${trace.services.join(" ")} ${trace.error ?? ""} ${trace.refusal ?? ""} ${trace.trace}`.toLowerCase().includes(filter));
  const longest = Math.max(1, ...wanted.map((trace) => trace.durationUs));
  const [rows, more] = bounded(wanted, (trace) => h("tr", {}, cell(clock(trace.startUs / 1000)), cell(anchor(`#/traces/${trace.trace}`, trace.name)), cell(trace.services.join(", ")), cell(`${trace.spans}`, "n"), cell([h("meter", { min: 0, max: longest, value: trace.durationUs }), ` ${duration(trace.durationUs / 1e6)}`], "n"), cell(outcome(trace), "wide mono")));
  return [
    h("h1", {}, query.get("service") ? `Traces through ${query.get("service")}` : "Traces"),
    h("div", { class: "row" }, filterInput("Filter traces"), h("label", {}, errors, " only errors"), query.get("service") && anchor("#/traces", "all services")),
    wanted.length === 0 ? h("div", { class: "empty" }, "No trace yet. A few requests a second are recorded, and every one that fails or takes a second.") : table([["When"], ["Request"], ["Services"], ["Spans", "n"], ["Took", "n"], ["Outcome"]], rows),
    more,
  ];
}

const LEVELS = { ERROR: "bad", WARN: "warn" };

/** The last records; none where they cannot be read, which the view of logs says. */
const readLogs = (query) => get(`/logs?${query}`).then(({ logs }) => logs, () => []);

function logTable(records, otherwise) {
  if (records.length === 0) return h("p", { class: "quiet" }, otherwise);
  const more = ({ timestamp, level, host, target, app, service, trace_id, span_id, message, ...fields }) => Object.entries(fields).map(([name, value]) => ` ${name}=${pretty(value)}`).join("");
  return table([["When"], ["Level"], ["Service"], ["Host"], ["Record"], ["Trace"]], [...records].reverse().map((record) => h("tr", {},
    cell(clock(Date.parse(record.timestamp)), "time"), cell(h("span", { class: LEVELS[record.level] ?? "quiet" }, record.level.toLowerCase())),
    cell(record.service ? anchor(`#/services/${record.service}`, record.service) : ""), cell(h("code", {}, record.host)),
    cell([record.message, h("span", { class: "quiet" }, more(record))], "wide mono"),
    cell(record.trace_id ? anchor(`#/traces/${record.trace_id}`, record.trace_id.slice(0, 8)) : ""))));
}

async function viewLogs(query) {
  const service = query.get("service");
  const { logs } = await get(`/logs?limit=${ROWS}${service ? `&service=${encodeURIComponent(service)}` : ""}`);
  const wanted = logs.filter((record) => `${record.level} ${record.service ?? ""} ${record.host} ${record.message} ${record.trace_id ?? ""}`.toLowerCase().includes(filter));
  return [
    h("h1", {}, service ? `Logs of ${service}` : "Logs"),
    h("div", { class: "row" }, filterInput("Filter records"), service && anchor("#/logs", "all services"), h("span", { class: "quiet" }, `The last ${ROWS} within ten minutes; the newest first. `, h("code", {}, "wasmbay logs --since"), " reaches further.")),
    wanted.length === 0 ? h("div", { class: "empty" }, logs.length === 0 ? "No record within ten minutes. Hosts keep their records where there is JetStream and their login may." : "The filter leaves none.") : logTable(wanted),
  ];
}

/** Spans by their place in the tree; one whose parent is not here stands at the top. */
function treeOf(hosts) {
  const spans = hosts.flatMap(({ host, spans: all }) => all.map((span) => ({ ...span, host })));
  const known = new Set(spans.map((span) => span.span));
  const below = Map.groupBy ? Map.groupBy(spans, (span) => (known.has(span.parent) ? span.parent : "")) : spans.reduce((map, span) => { const key = known.has(span.parent) ? span.parent : ""; map.set(key, [...(map.get(key) ?? []), span]); return map; }, new Map());
  const ordered = [];
  const visit = (span, depth) => {
    ordered.push({ ...span, depth });
    for (const child of (below.get(span.span) ?? []).sort((one, other) => one.startUs - other.startUs)) visit(child, depth + 1);
  };
  for (const top of (below.get("") ?? []).sort((one, other) => one.startUs - other.startUs)) visit(top, 0);
  return ordered;
}

const open = new Set();

async function viewTrace(id) {
  const { hosts } = await get(`/traces/${id}`);
  const spans = treeOf(hosts);
  const age = Math.ceil((Date.now() - Math.min(...spans.map((span) => span.startUs)) / 1000) / 1000) + 60;
  const records = await readLogs(`trace=${id}&since=${age}s&limit=200`);
  const start = Math.min(...spans.map((span) => span.startUs));
  const length = Math.max(1, Math.max(...spans.map((span) => span.startUs + span.durationUs)) - start);
  const rows = spans.map((span) => {
    const refusal = span.attributes["wasmbay.err"];
    const bar = h("i", { class: span.error ? "bad" : "" });
    bar.style.left = `${((span.startUs - start) / length) * 82}%`;
    bar.style.width = `${(span.durationUs / length) * 82}%`;
    const label = h("b", {}, duration(span.durationUs / 1e6));
    label.style.left = `calc(${((span.startUs - start + span.durationUs) / length) * 82}% + .4rem)`;
    const what = h("span", { class: "what" }, h("strong", {}, span.service), " ", span.kind === "client" ? "→ " : "", short(span.name), span.error ? h("span", { class: "bad" }, " ✗") : "", refusal ? h("span", { class: "warn" }, " err") : "");
    what.style.paddingLeft = `${span.depth * 0.9}rem`;
    const { "exception.stacktrace": stack, ...attributes } = span.attributes;
    const detail = h("div", { class: "detail", hidden: !(open.has(span.span) || span.error || refusal) },
      span.error && h("p", { class: "bad mono" }, span.error),
      definitions([["span", `${span.kind} ${span.name}`], ["host", span.host], ["began", `${moment(span.startUs / 1000)}, ${duration((span.startUs - start) / 1e6)} after the first`], ...Object.entries(attributes).map(([name, value]) => [name, h("code", {}, value)])]),
      stack && [h("p", { class: "quiet" }, "Where the guest was:"), h("pre", {}, stack)]);
    const toggle = () => { detail.hidden = !detail.hidden; if (detail.hidden) open.delete(span.span); else open.add(span.span); button.setAttribute("aria-expanded", !detail.hidden); };
    const button = h("button", { class: "span", "aria-expanded": !detail.hidden, title: span.name, onclick: toggle }, what, h("span", { class: "track" }, bar, label));
    return [button, detail];
  });
  const cut = hosts.some((host) => host.truncated);
  return [
    h("h1", {}, `${spans[0].name}`),
    definitions([["trace", h("code", {}, id)], ["began", moment(start / 1000)], ["took", duration(length / 1e6)], ["spans", `${spans.length} on ${plural(hosts.length, "host")}`]]),
    cut && h("p", { class: "warn" }, "It has more spans than are shown."),
    h("h2", {}, "Spans"), h("div", {}, rows),
    h("h2", {}, "Log records"), logTable(records, "Nothing was logged during it."),
  ];
}

async function viewDeadLetters(query) {
  const page = await get(`/dead-letters?limit=${ROWS}${query.get("after") ? `&after=${encodeURIComponent(query.get("after"))}` : ""}`);
  const wanted = page.deadLetters.filter((one) => `${one.service} ${one.function} ${one.id} ${one.attempts?.at(-1)?.error ?? ""}`.toLowerCase().includes(filter));
  if (page.deadLetters.length === 0) return [h("h1", {}, "Dead letters"), h("div", { class: "empty" }, "None. Events and messages that a service failed at for good are kept here, to be mended and replayed.")];
  const all = async () => { if (await confirm("Replay all?", "Every dead letter of the app goes back to its service.", "Replay all")) { await change("POST", "/dead-letters/replay?all=true"); again(0); } };
  return [
    h("h1", {}, "Dead letters"),
    h("div", { class: "row" }, filterInput("Filter dead letters"), h("button", { onclick: guarded(all) }, "Replay all"), page.next && anchor(`#/dead-letters?after=${encodeURIComponent(page.next)}`, "next page")),
    table([["Published"], ["Service"], ["Function"], ["Attempts", "n"], ["Why"]], wanted.map((one) => h("tr", {}, cell(anchor(`#/dead-letters/${encodeURIComponent(one.id)}`, one.published ? moment(Date.parse(one.published)) : one.id)), cell(one.service), cell(h("code", {}, short(one.function ?? "")), "wide"), cell(`${(one.attempts?.length ?? 0) + (one.leftOut ?? 0)}`, "n"), cell(one.attempts?.at(-1)?.error ?? one.unreadable ?? "", "wide mono")))),
  ];
}

async function viewDeadLetter(id) {
  const { body: one, etag } = await request(`${base}/dead-letters/${encodeURIComponent(id)}`);
  const text = one.body !== undefined ? JSON.stringify(one.body, null, 2) : (one.bodyText ?? one.bodyBase64 ?? "");
  const editor = h("textarea", { "aria-label": "Body", spellcheck: "false", value: text, readonly: one.bodyBase64 !== undefined });
  const path = `/dead-letters/${encodeURIComponent(id)}`;
  const save = async () => { await change("PUT", path, editor.value, etag); await show(); };
  const replay = async () => { if (editor.value !== text) await change("PUT", path, editor.value, etag); await change("POST", `${path}/replay`); location.hash = "#/dead-letters"; };
  const purge = async () => { if (await confirm("Purge it?", "The event is gone then; nothing brings it back.", "Purge")) { await change("DELETE", path); location.hash = "#/dead-letters"; } };
  return [
    h("h1", {}, `Dead letter of ${one.service}`),
    definitions([["function", h("code", {}, one.function)], ["published", one.published && moment(Date.parse(one.published))], ["edited", one.edited ? "yes" : "no"], ["stream", `${one.stream}, sequence ${one.sequence}`]]),
    h("h2", {}, "Attempts"),
    table([["When"], ["Code"], ["Blame"], ["Why"]], (one.attempts ?? []).map((attempt) => h("tr", {}, cell(moment(Date.parse(attempt.time))), cell(`${attempt.code ?? "err"}`), cell(attempt.blame), cell(attempt.error, "wide mono")))),
    h("h2", {}, "Body"), editor,
    h("div", { class: "row" }, h("button", { onclick: guarded(save) }, "Save"), h("button", { onclick: guarded(replay) }, "Replay"), h("button", { class: "danger", onclick: guarded(purge) }, "Purge")),
  ];
}

async function viewRuns(query) {
  const all = query.get("all") === "true";
  const page = await get(`/runs?limit=${ROWS}${all ? "&all=true" : ""}${query.get("after") ? `&after=${query.get("after")}` : ""}`);
  const box = h("input", { type: "checkbox", checked: all, onchange: (event) => (location.hash = event.target.checked ? "#/runs?all=true" : "#/runs") });
  const wanted = page.runs.filter((run) => `${run.id} ${run.pipeline} ${run.phase} ${run.why ?? ""}`.toLowerCase().includes(filter));
  return [
    h("h1", {}, "Runs of pipelines"),
    h("div", { class: "row" }, filterInput("Filter runs"), h("label", {}, box, " those that ended, too"), page.next && anchor(`#/runs?${all ? "all=true&" : ""}after=${page.next}`, "next page")),
    wanted.length === 0 ? h("div", { class: "empty" }, all ? "No run is kept." : "No run is open.") : table([["Began"], ["Pipeline"], ["Run"], ["Stands"], ["Took", "n"], ["Why"]], wanted.map((run) => h("tr", {}, cell(moment(run.began)), cell(run.pipeline), cell(anchor(`#/runs/${run.id}`, h("code", {}, run.id.slice(0, 12)))), cell(h("span", { class: run.why ? "bad" : run.ended ? "good" : "" }, run.phase)), cell(run.ended ? duration((run.ended - run.began) / 1000) : ago(run.began), "n"), cell(run.why ?? "", "wide mono")))),
  ];
}

const whyOf = ({ err, call, late }) => call?.message ?? (late === undefined ? `err: ${pretty(err)}` : `it did not come within ${duration(late / 1000)}`);
const withItems = (steps) => steps.flatMap((step) => [step, ...withItems(step.items ?? [])]);

async function viewRun(id) {
  const run = await get(`/runs/${id}`);
  const act = (verb, why) => guarded(async () => { if (await confirm(`${verb[0].toUpperCase()}${verb.slice(1)} it?`, why, verb)) { await change("POST", `/runs/${id}/${verb}`); again(500); } });
  const call = (title, one, result) => one && [h("h2", {}, title), definitions([["calls", h("code", {}, one.function)], ["Bay-Step", h("code", {}, one.id)], ["attempts", one.attempts === undefined ? "" : String(one.attempts)], ["the last one failed", one.failure && h("span", { class: "bad mono" }, whyOf(one.failure))]]), one.arguments !== undefined && h("pre", {}, pretty(one.arguments)), result !== undefined && h("pre", {}, `→ ${pretty(result)}`)];
  return [
    h("h1", {}, `${run.pipeline}: ${run.phase}`),
    definitions([["run", h("code", {}, run.id)], ["function", h("code", {}, run.function)], ["began", moment(run.began)], ["ended", run.ended && moment(run.ended)], ["why", run.why && h("span", { class: "bad mono" }, run.why)]]),
    h("div", { class: "row" },
      ["undo-failed", "stopped"].includes(run.phase) && h("button", { onclick: act("retry", "What failed is tried again, now.") }, "Retry"),
      run.phase === "completed" && h("button", { class: "danger", onclick: act("undo", "What was done is undone.") }, "Undo"),
      ["running", "stopped"].includes(run.phase) && h("button", { class: "danger", onclick: act("cancel", "It stops, and what was done is undone.") }, "Cancel run")),
    h("h2", {}, "Input"), h("pre", {}, pretty(run.input)),
    withItems(run.steps).map((step) => [call(`${step.name}: ${pretty(step.state)}${step.unknown ? " (an outcome nobody knows)" : ""}`, step.call ?? step.event ?? step, step.result), step.undo?.attempts > 0 && call(`undo of ${step.name}`, step.undo)]),
    run.reply !== undefined && [h("h2", {}, "Reply"), h("pre", {}, pretty(run.reply))],
    run.error && [h("h2", {}, "Error"), h("pre", {}, pretty(run.error))],
  ];
}

// ---- What is shown, and when it is read again.

const VIEWS = [
  [/^\/$/, "map", () => viewMap(), 2_000],
  [/^\/services\/([a-z0-9-]+)$/, "map", (_, name) => viewService(name), 5_000],
  [/^\/traces$/, "traces", (query) => viewTraces(query), 3_000],
  [/^\/traces\/([0-9a-f]{32})$/, "traces", (_, id) => viewTrace(id), 0],
  [/^\/dead-letters$/, "dead-letters", (query) => viewDeadLetters(query), 5_000],
  [/^\/dead-letters\/(.+)$/, "dead-letters", (_, id) => viewDeadLetter(decodeURIComponent(id)), 0],
  [/^\/runs$/, "runs", (query) => viewRuns(query), 5_000],
  [/^\/logs$/, "logs", (query) => viewLogs(query), 4_000],
  [/^\/runs\/([^/]+)$/, "runs", (_, id) => viewRun(decodeURIComponent(id)), 3_000],
];

let timer;
let turn = 0;

function again(milliseconds) {
  clearTimeout(timer);
  timer = setTimeout(show, milliseconds);
}

/** An action whose failure is shown where the reader is. */
const guarded = (action) => async (event) => {
  event.target.disabled = true;
  main.querySelectorAll("[role=alert]").forEach((earlier) => earlier.remove());
  try {
    await action();
  } catch (error) {
    main.prepend(h("div", { class: "error bad", role: "alert" }, error.message));
  } finally {
    event.target.disabled = false;
  }
};

/** By what an element is the same one after it was drawn again. */
const keyOf = (element) => element.id || `${element.tagName} ${element.getAttribute("href") ?? element.textContent}`;

function replace(content) {
  const active = document.activeElement;
  const focused = main.contains(active) && active !== main ? keyOf(active) : undefined;
  const [from, to] = active.id === "filter" ? [active.selectionStart, active.selectionEnd] : [];
  const scrolled = [...main.querySelectorAll(".map")].map((map) => [map.scrollLeft, map.scrollTop]);
  main.replaceChildren(...[content].flat(Infinity).filter(Boolean));
  [...main.querySelectorAll(".map")].forEach((map, index) => { if (scrolled[index]) [map.scrollLeft, map.scrollTop] = scrolled[index]; });
  const again_ = focused && [...main.querySelectorAll("a, button, input, textarea, [tabindex]")].find((element) => keyOf(element) === focused);
  if (again_) {
    again_.focus({ preventScroll: true });
    if (from !== undefined) again_.setSelectionRange(from, to);
  }
}

/** Where the reader is, as far as it is drawn. */
let drawn;

async function show() {
  clearTimeout(timer);
  const mine = (turn += 1);
  const [path, query] = (location.hash.slice(1) || "/").split("?");
  const found = VIEWS.map(([pattern, name, view, every]) => ({ parts: pattern.exec(path), name, view, every })).find(({ parts }) => parts);
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === found?.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!found) return replace(h("div", { class: "empty" }, "There is nothing here. ", anchor("#/", "To the map")));
  bytes = 0;
  // What comes soon enough needs no word.
  const slow = setTimeout(() => {
    if (mine !== turn) return;
    main.setAttribute("aria-busy", "true");
    state.textContent = "loading…";
    if (drawn !== location.hash) replace(h("p", { class: "quiet" }, "Loading…"));
  }, 300);
  try {
    const content = await found.view(new URLSearchParams(query), ...found.parts.slice(1));
    if (mine !== turn) return;
    replace(content);
    drawn = location.hash;
    document.title = `${main.querySelector("h1")?.textContent ?? "wasmbay"} · wasmbay`;
    state.className = "";
    state.textContent = found.every ? `live, ${clock(Date.now())}` : clock(Date.now());
    // What takes 16 KiB is read every two seconds, and what takes more less often, so that a page that
    // is left open does not cost more than 8 KiB/s.
    if (found.every) again(Math.max(found.every, (bytes / 8192) * 1000));
  } catch (error) {
    if (mine !== turn) return;
    state.className = "bad";
    state.textContent = error.status === 0 ? "not connected" : "failed";
    if (drawn !== location.hash) replace([]);
    if (main.querySelector(".error") === null) main.prepend(h("div", { class: "error", role: "alert" }, h("span", { class: "bad" }, error.message), error.status === 0 ? " What is shown is what was read last; it goes on when the host is back." : ""));
    again(3_000);
  } finally {
    clearTimeout(slow);
    if (mine === turn) main.removeAttribute("aria-busy");
  }
}

async function begin() {
  try {
    const { body: index } = await request("/");
    if (index.app === undefined) {
      const { body: all } = await request("/apps");
      const apps = (all.apps ?? []).map((app) => app.app ?? app.name);
      const wanted = sessionStorage.getItem("app");
      const app = apps.includes(wanted) ? wanted : apps[0];
      chooser.replaceChildren(...apps.map((name) => h("option", { value: name }, name)));
      chooser.hidden = apps.length === 0;
      if (app === undefined) {
        replace(h("div", { class: "empty" }, "The fleet has no app yet. ", h("code", {}, "wasmbay deploy"), " deploys one."));
        return void setTimeout(begin, 3_000);
      }
      chooser.value = app;
      base = `/apps/${app}`;
    }
    await show();
  } catch (error) {
    replace(h("div", { class: "error bad", role: "alert" }, error.message));
    setTimeout(begin, 3_000);
  }
}

chooser.addEventListener("change", () => { sessionStorage.setItem("app", chooser.value); base = `/apps/${chooser.value}`; readings.length = 0; location.hash = "#/"; show(); });
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
addEventListener("hashchange", () => { filter = ""; show(); main.focus({ preventScroll: true }); });
document.addEventListener("visibilitychange", () => { if (document.hidden) clearTimeout(timer); else show(); });
document.addEventListener("keydown", (event) => {
  const typing = ["INPUT", "TEXTAREA", "SELECT"].includes(event.target.tagName);
  if (event.key === "Escape" && !dialog.open) { if (typing) event.target.blur(); else if (location.hash.split("/").length > 2) history.back(); }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && document.getElementById("filter")) { event.preventDefault(); document.getElementById("filter").focus(); }
  const link = document.querySelectorAll("nav a")[Number(event.key) - 1];
  if (link) location.hash = link.getAttribute("href");
});
begin();
