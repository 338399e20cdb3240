"use strict";
// One page over the management API. What comes from there is only ever put in as text.

const $ = (id) => document.getElementById(id);
const KEPT = 300, PREFIXES_EVERY = 5;
// milliseconds between two turns, or as many seconds as ?every=5 says
const EVERY = 1000 * Math.min(Math.max(Number(new URLSearchParams(location.search).get("every")) || 2, 0.2), 3600);
let token = "", selected = "", windowName = "1m", paused = false, turn = 0, cursor = null, timer = 0, inspected = "";
const histories = new Map(); // by cache: what each turn has found

// -- asking

class Failed extends Error {
  constructor(status, problem) { super(problem.detail || problem.title || `HTTP ${status}`); this.status = status; }
}

async function ask(path, method = "GET", body) {
  const headers = { "X-Layercache-Admin": "1", Accept: "application/json" };
  const used = token;
  if (used) headers.Authorization = `Bearer ${used}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store", credentials: "omit" });
  const answer = await response.json().catch(() => ({}));
  if (response.ok || (path === "health" && "ready" in answer)) return answer;
  // what is refused late, for a token that was replaced meanwhile, says nothing of the new one
  if (response.status === 401 && used === token && !$("ask").open) { token = ""; $("ask").showModal(); }
  throw new Failed(response.status, answer);
}

const at = (name, rest) => `caches/${encodeURIComponent(name)}/${rest}`;

// -- spelling

const whole = (n) => n.toLocaleString("en-US", { maximumFractionDigits: 0 });
const percent = (part) => part === null ? "–" : `${(part * 100).toFixed(part > 0.995 && part < 1 ? 2 : 1)} %`;
const rate = (n) => n >= 100 ? whole(n) : n.toFixed(1);
function seconds(s) {
  if (s === null || s === undefined) return "–";
  if (s === 0) return "0";
  if (s < 1e-3) return `${(s * 1e6).toFixed(0)} µs`;
  if (s < 1) return `${(s * 1e3).toFixed(s < 0.01 ? 2 : 0)} ms`;
  if (s < 120) return `${s.toFixed(s < 10 ? 1 : 0)} s`;
  return s < 7200 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`;
}
function bytes(n) {
  if (n === null || n === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (n >= 1000 && unit < 4) { n /= 1000; unit += 1; }
  return `${unit && n < 100 ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
}
const left = (s) => s === null ? "for ever" : seconds(s);

// -- making elements

function made(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}
function drawn(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
const cell = (text, n = true) => made("td", n ? { class: "n" } : {}, text);
const chip = (text, kind) => made("span", { class: `chip ${kind}` }, text);

function notice(text, good = false) {
  const element = $("notice");
  element.hidden = !text;
  element.className = good ? "notice good" : "notice";
  element.textContent = text;
}
const complain = (error) => { if (error.status !== 401) notice(error.message); };

// -- charts: lines over the last turns, each with a legend that says the numbers, and a table

const CHARTS = [
  { id: "hits", title: "Hit rate", format: percent, top: 1 },
  { id: "times", title: "Time per load and far read (95 %)", format: seconds },
  { id: "bytes", title: "Memory used here", format: bytes },
  { id: "lag", title: "Log lag", format: seconds },
];
const H = 150, LEFT = 56, RIGHT = 8, TOP = 8, BOTTOM = 20;
let W = 520; // as wide as the page makes them, so that letters keep their shape

function newChart(chart) {
  const heading = `h-${chart.id}`;
  chart.svg = drawn("svg", { role: "img", "aria-labelledby": heading });
  chart.legend = made("div", { class: "legend" });
  chart.head = made("tr");
  chart.body = made("tbody");
  const table = made("table", {}, made("thead", {}, chart.head), chart.body);
  chart.details = made("details", { ontoggle: () => draw(chart) }, made("summary", {}, "As a table"),
    made("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${chart.title} as a table` }, table));
  chart.svg.addEventListener("pointermove", (event) => { chart.pointed = event; draw(chart); });
  chart.svg.addEventListener("pointerleave", () => { chart.pointed = null; draw(chart); });
  $("charts").append(made("section", { class: "card chart", "aria-labelledby": heading },
    made("h3", { id: heading }, chart.title), chart.svg, chart.legend, chart.details));
}

function draw(chart) {
  W = chart.svg.clientWidth || W;
  chart.svg.setAttribute("viewBox", `0 0 ${W} ${H}`);
  const turns = histories.get(selected) || [];
  const names = [...new Set(turns.flatMap((each) => Object.keys(each[chart.id])))].slice(0, 4);
  const all = turns.flatMap((each) => names.map((name) => each[chart.id][name])).filter((v) => v !== null && v !== undefined);
  const top = chart.top || niceTop(Math.max(...all, 0));
  const x = (index) => LEFT + (W - LEFT - RIGHT) * (turns.length < 2 ? 1 : 1 - (turns.length - 1 - index) / (span(turns) - 1));
  const y = (value) => TOP + (H - TOP - BOTTOM) * (1 - Math.min(value / top, 1));
  const parts = [];
  for (const part of [0, 0.5, 1]) {
    parts.push(drawn("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: y(part * top), y2: y(part * top) }));
    const label = drawn("text", { x: LEFT - 6, y: y(part * top) + 4, "text-anchor": "end" });
    label.textContent = all.length || chart.top ? chart.format(part * top).replace(".0 %", " %") : "";
    parts.push(label);
  }
  for (const [anchor, place, text] of [["start", LEFT, `${seconds(span(turns) * EVERY / 1000)} ago`], ["end", W - RIGHT, "now"]]) {
    const label = drawn("text", { x: place, y: H - 5, "text-anchor": anchor });
    label.textContent = text;
    parts.push(label);
  }
  names.forEach((name, number) => {
    let path = "", pen = false;
    turns.forEach((each, index) => {
      const value = each[chart.id][name];
      if (value === null || value === undefined) { pen = false; return; }
      path += `${pen ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
      if (!pen) path += "h0"; // so that one alone is seen, as a dot
      pen = true;
    });
    parts.push(drawn("path", { class: `s${number}`, d: path || "M0 0" }));
  });
  let shown = turns.length - 1;
  if (chart.pointed && turns.length > 1) {
    const box = chart.svg.getBoundingClientRect();
    const away = (box.right - RIGHT - chart.pointed.clientX) / (W - LEFT - RIGHT);
    shown = Math.max(0, Math.min(turns.length - 1, Math.round(turns.length - 1 - away * (span(turns) - 1))));
    parts.push(drawn("line", { class: "cursor", x1: x(shown), x2: x(shown), y1: TOP, y2: H - BOTTOM }));
  }
  chart.svg.replaceChildren(...parts);
  const now = turns[shown];
  chart.legend.replaceChildren(...names.map((name, number) => {
    const swatch = drawn("svg", { viewBox: "0 0 26 8", "aria-hidden": "true" });
    swatch.append(drawn("path", { class: `s${number}`, d: "M0 4H26" }));
    const value = now && now[chart.id][name];
    return made("span", {}, swatch, `${name} `, made("b", {}, value === undefined || value === null ? "–" : chart.format(value)));
  }), names.length ? "" : made("span", { class: "quiet" }, "Nothing to show for this cache."));
  if (chart.details.open) {
    chart.head.replaceChildren(made("th", { scope: "col" }, "Time"), ...names.map((name) => made("th", { scope: "col", class: "n" }, name)));
    chart.body.replaceChildren(...turns.slice(-30).reverse().map((each) => made("tr", {}, made("th", { scope: "row" }, each.time),
      ...names.map((name) => { const v = each[chart.id][name]; return cell(v === undefined || v === null ? "–" : chart.format(v)); }))));
  }
}
const span = (turns) => Math.max(30, Math.min(KEPT, turns.length));
function niceTop(most) {
  if (!(most > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 2.5, 5, 10].map((n) => n * unit).find((n) => n >= most * 1.05) || 10 * unit;
}

// -- a turn

function remember(name, stats) {
  const turns = histories.get(name) || [];
  const before = turns.length ? turns[turns.length - 1] : null;
  const window = stats.windows[windowName];
  const counts = { [name]: stats.total, ...Object.fromEntries(stats.total.layers.length > 1 ? stats.total.layers.map((l) => [l.name, l]) : []) };
  const seen = { time: new Date().toLocaleTimeString(), counts: {}, hits: {}, times: {}, bytes: {}, lag: {} };
  for (const [what, { hits, misses }] of Object.entries(counts)) {
    seen.counts[what] = { hits, misses };
    const last = before && before.counts[what];
    const reads = last ? hits - last.hits + misses - last.misses : 0;
    seen.hits[what] = reads > 0 ? Math.min(Math.max((hits - last.hits) / reads, 0), 1) : null;
  }
  seen.times.loads = window.load_times.p95;
  for (const layer of window.layers) {
    if (layer.reads) seen.times[`reads of ${layer.name}`] = layer.reads.p95;
    if ("bytes" in layer.gauges) seen.bytes[layer.name] = layer.gauges.bytes;
    if ("log_lag" in layer.gauges) seen.lag[layer.name] = layer.gauges.log_lag;
  }
  turns.push(seen);
  histories.set(name, turns.slice(-KEPT));
}

function showCaches(list) {
  $("environment").textContent = list.environment;
  const focused = document.activeElement && document.activeElement.dataset.cache;
  $("caches").replaceChildren(...list.caches.map((cache) => {
    const about = cache.is_open ? `${cache.hit_rate === null ? "no reads yet" : `${percent(cache.hit_rate)} hits`}` : "not in use here";
    return made("li", {}, made("button", { type: "button", "data-cache": cache.name, "aria-current": cache.name === selected && "true", onclick: () => select(cache.name) },
      made("b", {}, cache.name), cache.degraded ? chip("degraded", "warn") : made("span", { class: "quiet" }, cache.type), made("small", {}, about)));
  }));
  if (focused !== undefined) for (const button of $("caches").querySelectorAll("button")) if (button.dataset.cache === focused) button.focus();
  const mine = list.caches.find((cache) => cache.name === selected);
  if (mine) $("about").textContent = `${mine.backend} (${mine.type}), ttl ${left(mine.ttl)}`;
}

function showHealth(health) {
  const [text, kind] = !health.ready ? ["down", "bad"] : health.degraded ? ["degraded", "warn"] : ["healthy", "good"];
  if ($("health").textContent !== text) { $("health").textContent = text; $("health").className = `chip ${kind}`; }
}

function showStats(stats) {
  const window = stats.windows[windowName], tiles = [
    ["Hit rate", window.hits + window.misses ? percent(window.hit_rate) : "–"],
    ["Reads a second", rate(window.reads_per_second)],
    ["Loads a second", rate(window.loads_per_second)],
    ["Load, 95 %", seconds(window.load_times.p95)],
    ["Stale served", whole(window.stale_hits)],
    ["Load failures", whole(window.load_failures)],
    ["Covers", seconds(window.seconds)],
  ];
  $("tiles").replaceChildren(...tiles.map(([name, value]) => made("div", {}, made("dt", {}, name), made("dd", {}, value))));
  $("layers").replaceChildren(...window.layers.map((layer) => {
    const g = layer.gauges, optional = (name, spelt) => name in g ? spelt(g[name]) : "–";
    const circuit = "circuits_open" in g ? g.circuits_open > 0 ? chip("open", "bad") : chip("closed", "good") : "–";
    return made("tr", {}, made("th", { scope: "row" }, `${layer.name} `, made("span", { class: "quiet" }, layer.type)),
      made("td", {}, layer.degraded ? chip("failing", "bad") : chip("ok", "good")),
      cell(layer.hits + layer.misses ? percent(layer.hit_rate) : "–"), cell(whole(layer.hits)), cell(whole(layer.misses)), cell(whole(layer.errors)),
      cell(layer.reads ? seconds(layer.reads.p95) : "–"), cell(optional("entries", whole)), cell(optional("bytes", bytes)),
      cell(optional("evictions", whole)), made("td", {}, circuit), cell(optional("log_lag", seconds)));
  }));
  CHARTS.forEach(draw);
  showCurve(stats.total.layers.find((layer) => layer.curve));
}

const MULTIPLES = [0.25, 0.5, 1, 2, 5, 10];
function showCurve(layer) {
  $("curve").hidden = !layer;
  if (!layer) return;
  const { points, entries, sampled } = layer.curve;
  $("curve-points").replaceChildren(...points.filter((point) => MULTIPLES.includes(point.memory)).map((point) => {
    const svg = drawn("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" });
    svg.append(drawn("rect", { x: 0, y: 0, height: 10, width: 100 * point.hit_rate, rx: 1 }));
    return made("tr", {}, made("th", { scope: "row" }, point.memory === 1 ? "as now" : `× ${point.memory}`), made("td", { class: "bar" }, svg),
      cell(whole(entries * point.memory)), cell(percent(point.hit_rate)));
  }));
  $("curve-note").textContent = `What layer ${layer.name} would answer as an LRU cache, from ${whole(sampled)} reads that were looked at${sampled < 1000 ? ": too few to rely on" : ""}. Compare the lines with each other: its own policy may do better than each.`;
}

function showPrefixes(found) {
  const most = Math.max(1, ...found.prefixes.map((each) => each.hits ?? each.keys));
  $("prefixes").replaceChildren(...found.prefixes.map((each) => {
    const svg = drawn("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" });
    svg.append(drawn("rect", { x: 0, y: 0, height: 10, width: Math.max(1, 100 * (each.hits ?? each.keys) / most), rx: 1 }));
    return made("tr", {}, made("th", { scope: "row", class: "mono" }, each.prefix), made("td", { class: "bar" }, svg),
      cell(whole(each.keys)), cell(each.hits === null ? "–" : whole(each.hits)));
  }));
  $("prefixes-note").textContent = found.looked_at ? `Of ${whole(found.looked_at)} keys that were looked at.` : "There are no keys.";
}

async function takeTurn() {
  const began = performance.now();
  try {
    const [list, health] = await Promise.all([ask("caches"), ask("health")]);
    if (!list.caches.some((cache) => cache.name === selected)) {
      selected = "";
      const first = list.caches.find((cache) => cache.is_open && cache.hit_rate !== null) || list.caches.find((cache) => cache.is_open) || list.caches[0];
      if (first) choose(first.name);
    }
    showHealth(health);
    showCaches(list);
    if (selected) {
      const name = selected;
      const stats = await ask(at(name, "stats"));
      remember(name, stats);
      if (name === selected) showStats(stats);
      if (turn % PREFIXES_EVERY === 0) {
        const prefixes = await ask(at(name, "prefixes"));
        if (name === selected) showPrefixes(prefixes);
      }
      turn += 1;
    }
    if ($("notice").dataset.lost) { delete $("notice").dataset.lost; notice(""); }
  } catch (error) {
    if (error instanceof Failed) complain(error);
    else { $("notice").dataset.lost = "1"; notice("The management API does not answer; trying again."); }
  }
  // a large cache takes a while to count: asking takes a sixth of the time at most
  if (!paused && !$("ask").open) { clearTimeout(timer); timer = setTimeout(takeTurn, Math.max(EVERY, 5 * (performance.now() - began))); }
}
function now() { clearTimeout(timer); turn = 0; return takeTurn(); }

// -- choosing

function choose(name) {
  selected = name;
  inspected = "";
  $("name").textContent = name;
  document.title = `${name} – layercache`;
  $("explained").replaceChildren();
  $("keys").replaceChildren();
  $("prefixes").replaceChildren();
  $("delete").disabled = $("more").hidden = true;
  history.replaceState(null, "", `#${encodeURIComponent(name)}`);
}
function select(name) { if (name !== selected) { choose(name); notice(""); } now(); }

// -- keys

async function list(more) {
  const name = selected, prefix = $("prefix").value;
  const query = new URLSearchParams({ prefix, limit: "100", cursor: more ? cursor : "" });
  const page = await ask(at(name, `keys?${query}`));
  if (name !== selected) return;
  cursor = page.cursor;
  $("more").hidden = cursor === null;
  const items = page.keys.map((key) => made("li", {}, made("button", { type: "button", onclick: () => { $("key").value = key; explain(key).catch(complain); } }, key)));
  if (more) $("keys").append(...items);
  else $("keys").replaceChildren(...(items.length ? items : [made("li", { class: "quiet" }, cursor === null ? "There are none." : "None so far; there may be more.")]));
  $("said").textContent = `${page.keys.length} keys${cursor === null ? "" : ", and there are more"}`;
}

const KINDS = { fresh: "good", stale: "warn", failed: "bad", unreadable: "bad", invalid: "warn", dead: "warn", absent: "" };

async function explain(key) {
  const name = selected;
  const found = await ask(at(name, `keys/${encodeURIComponent(key)}${$("value").checked ? "?value=true" : ""}`));
  if (name !== selected) return;
  inspected = key;
  $("delete").disabled = false;
  const rows = found.layers.map((layer) => {
    const here = !["absent", "failed", "unreadable"].includes(layer.state), notes = [];
    if (layer.note) notes.push(layer.note);
    if (layer.lease) notes.push(layer.lease.holder ? `lease held by ${layer.lease.holder}, ${seconds(layer.lease.seconds_left)} left` : `loads held back for ${seconds(layer.lease.seconds_left)}`);
    const tags = layer.tags.map((tag) => (tag.tag === "*" ? "the cache" : tag.tag) + (tag.is_current ? "" : tag.is_alive ? " (invalidated softly)" : " (invalidated)"));
    return made("tr", {}, made("th", { scope: "row" }, `${layer.name} `, made("span", { class: "quiet" }, layer.type)),
      made("td", {}, chip(layer.state, KINDS[layer.state])), cell(layer.state === "fresh" ? left(layer.fresh_left) : "–"),
      cell(here && layer.state !== "dead" ? left(layer.ttl_left) : "–"), cell(layer.age === null ? "–" : seconds(layer.age)), cell(bytes(layer.size)),
      cell(tags.join(", ") || "–", false), cell(layer.stages.length ? layer.stages.join(" + ") + (layer.dictionary === null ? "" : ` (dictionary ${layer.dictionary})`) : "–", false), cell(notes.join("; ") || "–", false));
  });
  const heads = ["Layer", "State", "Fresh for", "Dead in", "Age", "Size", "Tags", "Stages", "Notes"];
  $("explained").replaceChildren(
    made("p", { class: "would" }, made("code", {}, found.key), ": a read that loads would now ", made("b", {}, found.would), `, as ${found.why}.`),
    made("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Layer by layer" }, made("table", {}, made("thead", {}, made("tr", {},
      ...heads.map((head, index) => made("th", { scope: "col", class: index > 1 && index < 6 ? "n" : null }, head)))), made("tbody", {}, ...rows))),
    found.value_note ? made("p", { class: "quiet" }, `No value: ${found.value_note}.`) : $("value").checked ? made("pre", { tabindex: "0", "aria-label": "Value" }, JSON.stringify(found.value, null, 2)) : "");
}

// -- changes, each after a question

function confirmed(title, text, yes, name) {
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  $("confirm-yes").textContent = yes;
  $("confirm-type").hidden = !name;
  $("confirm-name").value = "";
  $("confirm-yes").disabled = Boolean(name);
  $("confirm-name").oninput = () => { $("confirm-yes").disabled = $("confirm-name").value !== name; };
  const dialog = $("confirm"), from = document.activeElement;
  dialog.returnValue = "no";
  dialog.showModal();
  if (name) $("confirm-name").focus();
  return new Promise((resolve) => dialog.addEventListener("close", () => { if (from) from.focus(); resolve(dialog.returnValue === "yes"); }, { once: true }));
}

async function change(path, method, body, said) {
  try {
    const answer = await ask(path, method, body);
    notice(said(answer), true);
    await now();
    return true;
  } catch (error) { complain(error); return false; }
}

$("list").addEventListener("submit", (event) => { event.preventDefault(); list(false).catch(complain); });
$("more").addEventListener("click", () => list(true).catch(complain));
$("inspect").addEventListener("submit", (event) => { event.preventDefault(); notice(""); explain($("key").value).catch(complain); });
$("delete").addEventListener("click", async () => {
  const name = selected, key = inspected;
  if (!await confirmed("Delete this key?", `${key}, from every layer of ${name}.`, "Delete")) return;
  if (await change(at(name, `keys/${encodeURIComponent(key)}`), "DELETE", undefined, (answer) => answer.was_there ? `${key} is gone.` : `${key} was not there.`)) explain(key).catch(complain);
});
$("invalidate").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = selected, soft = $("soft").checked, tags = [...new Set($("tags").value.split(",").map((tag) => tag.trim()).filter(Boolean))];
  if (!tags.length) return;
  const what = soft ? "becomes stale: it is served while it is loaded anew." : "is gone, and has to be loaded anew.";
  if (!await confirmed(`Invalidate ${tags.join(", ")}?`, `Everything in ${name} that carries ${tags.length > 1 ? "one of these tags" : "this tag"} ${what}`, "Invalidate")) return;
  change(at(name, "invalidate"), "POST", { tags, soft }, () => `Invalidated ${tags.join(", ")}${soft ? " softly" : ""}.`);
});
$("clear").addEventListener("click", async () => {
  const name = selected;
  if (await confirmed(`Clear ${name}?`, "Every key of it is gone, for all processes that share its store, and has to be loaded anew.", "Clear it", name)) change(at(name, "clear"), "POST", undefined, () => `${name} is empty.`);
});
$("warm").addEventListener("click", () => change(at(selected, "warm"), "POST", {}, (answer) => {
  const reports = Object.values(answer.functions), loaded = reports.reduce((sum, each) => sum + each.loaded, 0);
  return reports.length ? `Warmed: ${loaded} loaded.` : "No function of this process lists keys to warm for this cache.";
}));

// -- the rest

addEventListener("resize", () => CHARTS.forEach(draw));
for (const radio of document.querySelectorAll("[name=window]")) radio.addEventListener("change", () => { windowName = radio.value; now(); });
$("pause").addEventListener("click", () => { paused = !paused; $("pause").setAttribute("aria-pressed", String(paused)); if (paused) clearTimeout(timer); else now(); });
$("theme").addEventListener("change", () => { if ($("theme").value) document.documentElement.dataset.theme = $("theme").value; else delete document.documentElement.dataset.theme; });
$("ask-form").addEventListener("submit", () => { token = $("token").value.trim(); $("token").value = ""; $("forget").hidden = false; notice(""); });
$("ask").addEventListener("close", () => now());
$("ask").addEventListener("cancel", (event) => event.preventDefault());
$("forget").addEventListener("click", () => { token = ""; $("forget").hidden = true; now(); });

try { selected = decodeURIComponent(location.hash.slice(1)); } catch { selected = ""; }
if (selected === "main") selected = "";
if (selected) choose(selected);
CHARTS.forEach(newChart);
now();
