"use strict";
/* Asks /state.json every two seconds and draws it.  What a peer says of itself, its name above all, is hostile:
   it becomes text by textContent and never markup.  There is no innerHTML here. */
const STEP_MS = 2000, PATIENCE_MS = 6000, MAP_COUNT_MAX = 24, MAP_COUNT_NARROW_MAX = 12, NARROW = 500, HEARD_S = 45;
const $ = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) if (value !== null) node.setAttribute(name, value);
  for (const child of children.flat(9)) if (child !== null && child !== undefined && child !== "")
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  return node;
}
const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/* Replaces what a place shows, unless it is the same, or a person is marking text in it. */
function show(place, ...children) {
  const next = fill(place.cloneNode(false), null, children), chosen = getSelection();
  if (place.isEqualNode(next)) return;
  if (chosen && !chosen.isCollapsed && place.contains(chosen.anchorNode)) return;
  place.replaceChildren(...next.childNodes);
}

/* --- values as a person reads them; null: not known --- */
const known = value => value !== null && value !== undefined;
const number = value => known(value) ? value.toLocaleString("en") : null;
const plural = (count, word) => count + " " + word + (count === 1 ? "" : "s");
function duration(seconds) {
  if (!known(seconds)) return null;
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return whole + " s";
  if (whole < 3600) return Math.floor(whole / 60) + " min";
  if (whole < 86400) return Math.floor(whole / 3600) + " h " + Math.floor(whole % 3600 / 60) + " min";
  return Math.floor(whole / 86400) + " d " + Math.floor(whole % 86400 / 3600) + " h";
}
function size(bytes) {
  if (!known(bytes)) return null;
  if (bytes < 1000) return bytes + " B";
  for (const unit of ["kB", "MB", "GB", "TB"]) {
    bytes /= 1000;
    if (bytes < 1000 || unit === "TB") return (bytes < 10 ? bytes.toFixed(1) : bytes.toFixed(0)) + " " + unit;
  }
}
function milliseconds(ms) {
  if (!known(ms)) return null;
  if (ms >= 1000) return (ms / 1000).toFixed(1) + " s";
  return (ms < 10 ? ms.toFixed(2) : ms.toFixed(0)) + " ms";
}
function rate(mbit) {
  if (!known(mbit)) return null;
  if (mbit >= 1000) return (mbit / 1000).toFixed(1) + " Gbit/s";
  if (mbit >= 1) return (mbit < 10 ? mbit.toFixed(1) : mbit.toFixed(0)) + " Mbit/s";
  return (mbit * 1000 < 10 && mbit > 0 ? (mbit * 1000).toFixed(1) : (mbit * 1000).toFixed(0)) + " kbit/s";
}
const clock = at => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
const day = at => new Date(at * 1000).toISOString().slice(0, 10);
const until = (at, now) => !known(at) ? null : at > now ? "until " + day(at) : h("span", { class: "bad" }, "EXPIRED " + day(at));
const way = hops => !known(hops) ? null : hops.length > 1 ? "by " + hops.slice(0, -1).join(", ") : "direct";

/* --- tables: a column is [heading, row => content, class] --- */
function table(place, title, note, columns, rows, none) {
  const head = h("h2", null, title, note ? h("small", null, note) : null);
  if (!rows.length) return show(place, head, h("p", { class: "none" }, none));
  const cell = (row, [heading, content, kind], index) => {
    const value = content(row), tag = index ? "td" : "th", empty = !known(value) || value === "";
    const classes = [kind, empty && index ? "void" : null].filter(Boolean).join(" ");
    return h(tag, { "data-label": index ? heading : null, scope: index ? null : "row", class: classes || null },
      empty ? h("span", { class: "none" }, "–") : h("div", null, value));
  };
  show(place, head, h("table", null,
    h("thead", null, h("tr", null, columns.map(each => h("th", { scope: "col", class: each[2] === "number" ? "number" : null }, each[0])))),
    h("tbody", null, rows.map(row => h("tr", null, columns.map((column, index) => cell(row, column, index)))))));
}
const GOOD = ["flowing", "receiving", "open", "on"], BAD = ["no answer", "suspect", "waiting to retry"];
const tone = word => GOOD.includes(word) ? "good" : BAD.includes(word) ? "bad" : "soft";
const state = word => h("span", { class: "dot " + tone(word) }, word);

/* --- the map: this board in the middle, each node beyond what packets to it go through --- */
function tree(nodes) {
  const all = new Map([["", { children: [], depth: 0 }]]);
  for (const node of nodes) all.set(node.name, { node, children: [], depth: 1 });
  for (const node of nodes) {
    const before = (node.by || []).filter(name => name !== node.name);
    const parent = before.length && all.has(before[before.length - 1]) ? before[before.length - 1] : "";
    all.get(node.name).parent = parent;
  }
  for (const [name, place] of all) if (name) {
    const seen = new Set([name]);
    let up = place.parent;
    while (up && !seen.has(up)) { seen.add(up); up = all.get(up).parent; }
    if (up) place.parent = "";  /* two that name each other */
    all.get(place.parent).children.push(place);
  }
  const settle = (place, depth) => {
    place.depth = depth;
    place.leaves = place.children.reduce((sum, each) => sum + settle(each, depth + 1), 0) || 1;
    return place.leaves;
  };
  const root = all.get("");
  settle(root, 0);
  return root;
}
/* Returns the places of a tree around [0, 0], as fractions; each subtree has a slice of the circle, by its leaves. */
function spread(root) {
  let depths = 1;
  const measure = place => { depths = Math.max(depths, place.depth); place.children.forEach(measure); };
  measure(root);
  const places = [], crowded = root.leaves > 11;
  const put = (place, from, to) => {
    let angle = from;
    place.children.forEach((child, index) => {
      const span = (to - from) * child.leaves / place.leaves, turn = angle + span / 2;
      const ring = child.children.length ? child.depth / (depths - 0.25) : crowded && index % 2 ? 0.78 : 1;
      places.push({ ...child, before: place, x: Math.cos(turn) * ring, y: Math.sin(turn) * ring });
      child.at = places[places.length - 1];
      put(child, angle, angle + span);
      angle += span;
    });
  };
  const begin = -Math.PI / 2 - Math.PI / root.leaves * (root.leaves > 2 ? 1 : 1.6);
  put(root, begin, begin + 2 * Math.PI);
  return places;
}
/* Returns what maps values onto the room from one end to the other; a middle alone stays in the middle. */
function fit(values, from, to) {
  const least = Math.min(0, ...values), most = Math.max(0, ...values), range = most - least;
  return value => range < 0.01 ? (from + to) / 2 : from + (to - from) * (value - least) / range;
}
function drawMap(own, nodes) {
  if (!nodes.length) return show($("map"), h("p", { class: "none" }, "No other node is known yet."));
  const width = Math.max(260, $("map").clientWidth), narrow = width < NARROW;
  const rank = node => node.busy ? 0 : node.gone ? 2 : 1, sorted = [...nodes].sort((one, other) => rank(one) - rank(other));
  const shown = sorted.slice(0, narrow ? MAP_COUNT_NARROW_MAX : MAP_COUNT_MAX), root = tree(shown), places = spread(root);
  const crowded = shown.length > (narrow ? 8 : 12), height = Math.round(Math.min(440, Math.max(300, width * 0.6)));
  const x = fit(places.map(each => each.x), 58, width - 58), y = fit(places.map(each => each.y), 22, height - 48);
  const text = (at, down, kind, words) => s("text", { class: kind, x: x(at.x).toFixed(1), y: (y(at.y) + down).toFixed(1) }, words);
  const short = (words, count) => words.length > count ? words.slice(0, count - 1) + "…" : words;
  root.at = { x: 0, y: 0 };
  const lines = places.map(({ node, depth, before, x: east, y: south }) => {
    const kind = node.reach === "broker" || node.gone ? "broker" : depth > 1 || node.reach === "relay" ? "relay" : "lan";
    const from = before.at;
    return s("path", { class: `way ${kind}${node.gone ? " lost" : node.busy ? " busy" : ""}`,
      d: `M${x(from.x).toFixed(1)} ${y(from.y).toFixed(1)}L${x(east).toFixed(1)} ${y(south).toFixed(1)}` });
  });
  const circles = places.map(at => s("g", null, s("title", null, at.node.name + ": " + wayOf(at.node)),
    s("circle", { class: at.node.gone ? "gone" : at.node.busy ? "busy" : null, cx: x(at.x).toFixed(1), cy: y(at.y).toFixed(1), r: crowded ? 8 : 12 }),
    text(at, crowded ? 22 : 28, "label", short(at.node.name, crowded ? narrow ? 9 : 11 : 16)),
    crowded || !known(at.node.rtt_ms) ? null : text(at, 42, null, milliseconds(at.node.rtt_ms))));
  const key = (kind, words) => h("span", null, s("svg", { viewBox: "0 0 30 10" }, s("path", { class: "way " + kind, d: "M1 5H29" })), words);
  show($("map"), s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Map of the nodes around " + own },
    lines, circles, s("circle", { class: "self", cx: x(0).toFixed(1), cy: y(0).toFixed(1), r: 16 }), text(root.at, 33, "label", short(own, 16))),
  h("p", { class: "keys" }, key("lan", "same LAN"), key("relay", "by a relay"), key("broker", "by a broker"), key("lan busy", "packets flow now"),
    nodes.length > shown.length ? h("span", null, `and ${nodes.length - shown.length} more in the table`) : null));
}

/* --- plots --- */
function steps(most) {
  if (!(most > 0)) return [0, 1];
  const raw = most / 2, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(each => each * power).find(each => each >= raw);
  return [0, step, 2 * step];
}
function plot(title, unit, series, history, now) {
  const width = 0 | Math.max(240, Math.min(720, series.wide || 340)), height = 150, left = 46, right = 8, top = 8, bottom = 22;
  const values = series.lines.flatMap(each => history[each.field]).filter(known), most = Math.max(0, ...values);
  const scale = unit === "bit/s" ? (most >= 1000 ? [1e-3, "Gbit/s"] : most >= 1 ? [1, "Mbit/s"] : [1e3, "kbit/s"]) : [1, unit];
  let ticks = steps(most * scale[0]);
  if (unit !== "bit/s" && ticks[1] < 1) ticks = [0, 1];
  const ceiling = ticks[ticks.length - 1];
  const x = at => left + (width - left - right) * (1 - (now - at) / 3600), y = value => top + (height - top - bottom) * (1 - value * scale[0] / ceiling);
  const grid = ticks.map(tick => [
    s("path", { class: tick ? "grid" : "axis", d: `M${left} ${y(tick / scale[0]).toFixed(1)}H${width - right}` }),
    s("text", { x: left - 6, y: (y(tick / scale[0]) + 4).toFixed(1), "text-anchor": "end" }, +tick.toPrecision(3))]);
  const times = [3600, 1800, 0].map(ago => s("text", { x: x(now - ago).toFixed(1), y: height - 5,
    "text-anchor": ago === 3600 ? "start" : ago ? "middle" : "end" }, ago ? clock(now - ago) : "now"));
  const shapes = series.lines.map(each => {
    const runs = [];
    let run = null;
    history.at.forEach((at, index) => {
      const value = history[each.field][index];
      if (!known(value) || now - at > 3600) run = null;
      else if (run) run.push([x(at), y(value)]);
      else runs.push(run = [[x(at), y(value)]]);
    });
    const path = points => "M" + points.map(point => point[0].toFixed(1) + " " + point[1].toFixed(1)).join("L");
    return runs.filter(points => points.length > 1).map(points => [
      s("path", { class: "area " + each.kind, d: `${path(points)}L${points[points.length - 1][0].toFixed(1)} ${y(0)}L${points[0][0].toFixed(1)} ${y(0)}Z` }),
      s("path", { class: "line " + each.kind, d: path(points) })]);
  });
  return h("figure", { class: "plot" },
    h("figcaption", null, h("b", null, title), h("span", null, scale[1]),
      series.lines.map(each => each.text && h("span", { class: "key " + each.kind }, h("span", { class: "soft" }, each.text)))),
    s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title + " in the last hour" }, grid, shapes, times,
      values.length > 1 ? null : s("text", { x: (left + width) / 2, y: height / 2, "text-anchor": "middle" }, "measuring …")));
}
function drawPlots(history, now) {
  const room = $("plots").clientWidth, wide = room >= 860;
  const width = wide ? (room - 44) : room;
  const at = (share, lines) => ({ lines, wide: wide ? width * share : width });
  show($("plots"),
    plot("Traffic", "bit/s", at(0.5, [{ field: "received_mbit", kind: "a", text: "received" }, { field: "sent_mbit", kind: "b", text: "sent" }]), history, now),
    plot("Links", "open", at(0.25, [{ field: "links", kind: "a" }]), history, now),
    plot("Drops", "packets in 15 s", at(0.25, [{ field: "drops", kind: "c" }]), history, now));
}

/* --- bytes a day: a column each, received below and sent above; the bound is a dashed line --- */
const allowed = budget => [[budget.day_limit_bytes, "a day"], [budget.month_limit_bytes, "a month"]].filter(each => known(each[0]))
  .map(each => size(each[0]) + " " + each[1]).join(", ");
function drawUsage(budget) {
  const days = budget.days, width = Math.max(240, $("usage").clientWidth - 32), height = 120, left = 52, low = 18;
  const note = `${size(budget.today_bytes)} today, ${size(budget.month_bytes)} this month` + (allowed(budget) ? `; allowed are ${allowed(budget)}` : "");
  const head = h("h2", null, "Bytes a day", h("small", null, note));
  if (!days.length) return show($("usage"), head, h("p", { class: "none" }, "Nothing has passed yet."));
  const bound = budget.day_limit_bytes, most = Math.max(1, ...days.map(each => each.sent_bytes + each.received_bytes), known(bound) ? Math.min(bound, 1e15) : 0);
  const y = bytes => (height - low) * (1 - bytes / most) + 4, step = (width - left) / Math.max(days.length, 7);
  const column = (each, index) => {
    const x = left + index * step, wide = Math.max(2, step - 3), sum = each.sent_bytes + each.received_bytes;
    const part = (kind, from, to) => s("rect", { class: "column " + kind, x: x.toFixed(1), width: wide.toFixed(1), y: y(to).toFixed(1), height: Math.max(0, y(from) - y(to)).toFixed(1) });
    return s("g", null, s("title", null, `${each.date}: ${size(each.received_bytes)} received, ${size(each.sent_bytes)} sent`),
      part("a", 0, each.received_bytes), part("b", each.received_bytes, sum),
      index % Math.ceil(days.length / (width < NARROW ? 4 : 8)) ? null : s("text", { x: x.toFixed(1), y: height }, each.date.slice(5)));
  };
  show($("usage"), head, h("figure", { class: "plot" },
    h("figcaption", null, h("span", { class: "key a" }, h("span", { class: "soft" }, "received")), h("span", { class: "key b" }, h("span", { class: "soft" }, "sent")),
      budget.state === "under" ? null : h("span", { class: budget.state === "over" ? "bad" : "soft" }, budget.state === "over" ? "more than is allowed: nothing is stopped" : "nearly as much as is allowed")),
    s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "bytes of each day: " + note },
      s("line", { class: "axis", x1: left, x2: width, y1: y(0), y2: y(0) }), s("text", { x: left - 6, y: 12, "text-anchor": "end" }, size(most)),
      known(bound) ? s("line", { class: "bound", x1: left, x2: width, y1: y(bound), y2: y(bound) }) : null, days.map(column))));
}

/* --- the whole --- */
const wayOf = node => node.reach === "relay" ? "by " + node.by.join(", ") : { lan: "same LAN", broker: "by a broker", direct: "direct" }[node.reach] ||
  (node.left_at ? "left the LAN" : "not reached");
const heard = (node, now) => !known(node.heard_at) ? null : node.reach && now - node.heard_at < HEARD_S ? "now" : duration(now - node.heard_at) + " ago";

function draw(got) {
  const { status, daemon, history } = got, now = got.now_at;
  $("silent").hidden = daemon.answering;
  if (!daemon.answering) show($("silent"),
    h("b", null, "The daemon has not answered since " + clock(daemon.silent_at) + " (" + duration(now - daemon.silent_at) + ")"),
    daemon.reason, status ? h("p", null, "What stands below is as it was then.") : null);
  document.querySelectorAll("main > :not(#silent)").forEach(each => each.classList.toggle("stale", !daemon.answering));
  document.body.classList.toggle("blank", !status);
  drawPlots(history, now);
  if (!status) {
    show($("line"), "nothing is known of this board yet");
    return pill("bad", "no answer");
  }
  const { node, realm, device, credential, memory } = status;
  document.title = node.name + " · Conflux";
  show($("name"), node.name);
  show($("line"), `node of realm ${realm.name}, running for ${duration(status.uptime_s)}`);
  const streaming = new Map(status.streams.filter(each => each.direction === "out").map(each => [each.node, each]));
  const flowing = new Set(status.streams.filter(each => GOOD.includes(each.state)).map(each => each.node));
  const carrying = new Set(status.streams.flatMap(each => each.path || []));
  const nodes = status.nodes.map(each => ({ ...each, busy: flowing.has(each.node) || carrying.has(each.name),
    rtt_ms: (streaming.get(each.node) || each).rtt_ms, gone: !each.reach }));
  const findings = wrong(status, got.findings);
  if (!daemon.answering) pill("bad", "no answer");
  else pill(findings.length ? "warn" : "good", findings.length ? plural(findings.length, "finding") : "all well");
  const last = name => history[name].length ? history[name][history[name].length - 1] : null;
  const dropped = history.drops.reduce((sum, each) => sum + (each || 0), 0);
  const tile = (text, value, small) => h("div", { class: "tile" }, h("span", null, text), h("b", null, known(value) ? value : "–", small ? h("small", null, " " + small) : null));
  show($("tiles"),
    tile("nodes", nodes.filter(each => !each.gone).length, "of " + nodes.length + " reached"),
    tile("received", rate(last("received_mbit"))), tile("sent", rate(last("sent_mbit"))),
    tile("links open", status.links.filter(each => each.state === "open").length),
    tile("dropped", number(dropped), "this hour"));
  const graded = grade => got.findings.filter(each => each.grade === grade).length;
  const looked = !got.findings.length ? "" : `${plural(graded("good"), "check")} good` +
    (graded("unseen") ? `, ${graded("unseen")} not possible from here: sudo conflux doctor` : "");
  show($("health"), h("h2", null, "Health", looked ? h("small", null, looked) : null), h("ul", { class: "findings" }, findings.length ?
    findings.map(each => h("li", null, h("i", { class: "warn", "aria-label": "wrong" }, "!"),
      h("div", null, h("p", null, each.text), each.remedy ? h("p", { class: "remedy" }, each.remedy) : null))) :
    h("li", null, h("i", { class: "good", "aria-hidden": "true" }, "✓"), h("p", null, "Nothing is wrong."))));
  drawMap(node.name, nodes);
  const fact = (name, ...value) => [h("dt", null, name), h("dd", null, value)];
  const long = (name, ...value) => [h("dt", { class: "wide" }, name), h("dd", { class: "wide" }, value)];
  show($("board"), h("h2", null, "This board"), h("dl", null,
    long("addresses", h("div", { class: "mono" }, node.addresses.map(each => h("span", null, each)))),
    fact("device", h("span", { class: "dot " + (device.up ? "good" : "bad") }, device.up ? "up" : "DOWN: packets do not pass"), ` ${device.name}, MTU ${number(device.mtu_bytes)}`),
    status.control.map(each => fact(each.name, h("span", { class: "dot " + (each.up ? "good" : "bad") }, each.up ? "up" : "DOWN"), ": ", each.detail)),
    fact("relaying", { on: "on", off: "off, by configuration" }[status.relaying] || "off, the credential does not allow it"),
    fact("credential", `until ${day(credential.expires_at)} (${duration(credential.expires_at - now)}), renews automatically`),
    fact("memory", size(memory.rss_bytes) || "–"),
    fact("version", status.version),
    long("node id", h("span", { class: "mono" }, node.id))));
  table($("nodes"), "Nodes", "", [
    ["name", each => each.name],
    ["addresses", each => [each.ipv6, each.ipv4].filter(known).map(one => h("span", null, one)), "mono"],
    ["way", each => h("span", { class: "dot " + (each.gone ? "bad" : "good") }, wayOf(each))],
    ["heard", each => heard(each, now)],
    ["received", each => size(each.received_bytes), "number"],
    ["sent", each => size(each.sent_bytes), "number"],
    ["credential", each => until(each.expires_at, now), "wide"],
  ], nodes, "No other node is known yet.");
  if (status.budget) drawUsage(status.budget);
  table($("streams"), "Streams", "who speaks with whom, end to end", [
    ["node", each => (each.direction === "out" ? "to " : "from ") + each.name],
    ["state", each => state(each.state)],
    ["way", each => way(each.path)],
    ["packets", each => number(each.packets), "number"],
    ["bytes", each => size(each.bytes), "number"],
    ["waiting", each => each.queued_packets ? number(each.queued_packets) : null, "number"],
    ["round trip", each => milliseconds(each.rtt_ms), "number"],
  ], status.streams, "Nothing is being sent or received.");
  table($("links"), "Links", "open only while something uses them", [
    ["neighbour", each => each.name],
    ["state", each => state(each.state)],
    ["age", each => duration(each.age_s), "number"],
    ["received", each => size(each.received_bytes), "number"],
    ["sent", each => size(each.sent_bytes), "number"],
    ["round trip", each => milliseconds(each.rtt_ms), "number"],
    ["rate", each => rate(each.rate_mbit), "number"],
  ], status.links, "None: no data-plane socket is open.");
  const names = new Map(nodes.map(each => [each.node, each.name]));
  const paths = status.destinations.flatMap(to => to.paths.map(each => ({ ...each, to: to.name, relays: each.hops.slice(0, -1).map(hop => names.get(hop) || hop) })));
  table($("paths"), "Routes", "the ways that are known, and why one is or is not taken", [
    ["to", each => each.to],
    ["way", each => each.relays.length ? "by " + each.relays.join(", ") : "direct"],
    ["round trip", each => milliseconds(each.rtt_ms), "number"],
    ["set-up", each => milliseconds(each.open_ms), "number"],
    ["opened", each => number(each.openings), "number"],
    ["failed", each => number(each.failures), "number"],
    ["why", each => each.why, "wide"],
  ], paths, "None: no packet has been sent lately.");
  table($("relays"), "Carried for others", "", [
    ["between", each => `${each.before.name || "?"} and ${each.ahead.name || "?"}`],
    ["ahead", each => size(each.ahead_bytes), "number"],
    ["back", each => size(each.back_bytes), "number"],
    ["ends in", each => duration(each.expires_in_s), "number"],
  ], status.relays, "No route of other nodes passes through this board.");
  table($("drops"), "Drops", "since the daemon started", [
    ["reason", each => each.reason],
    ["count", each => number(each.times), "number"],
    ["says", each => h("span", { class: each.kind === "alarming" ? "dot warn" : "soft" }, each.kind === "alarming" ? "look at this: " : "", each.text), "wide"],
  ], status.drops, "Nothing was dropped.");
  show($("foot"), h("span", null, "Conflux " + status.version), h("span", null, "as of " + new Date(now * 1000).toLocaleTimeString([], { hour12: false })), h("a", { href: "/metrics" }, "metrics for Prometheus"),
    known(got.bench_at) ? h("a", { href: "/bench" }, "bench of " + day(got.bench_at)) : null);
}
/* What is wrong: the doctor's bad findings, and warnings of the daemon that are newer than these. */
function wrong(status, findings) {
  const bad = findings.filter(each => each.grade === "bad");
  const fresh = status.warnings.filter(text => !bad.some(each => each.text === text));
  return [...bad, ...fresh.map(text => ({ text, remedy: "" }))];
}
function pill(kind, text) {
  $("pill").className = "pill " + kind;
  show($("pill"), text);
}

let last = null, failing = 0;
async function ask() {
  const giveUp = new AbortController(), timer = setTimeout(() => giveUp.abort(), PATIENCE_MS);
  try {
    const answer = await fetch("/state.json", { signal: giveUp.signal, cache: "no-store" });
    last = await answer.json();
    failing = 0;
    draw(last);
  } catch (error) {
    failing = failing || Date.now() / 1000;
    $("silent").hidden = false;
    pill("bad", "no answer");
    show($("silent"), h("b", null, "This board has not answered since " + clock(failing)), "The page is tried again every two seconds.");
  } finally {
    clearTimeout(timer);
    setTimeout(ask, document.hidden ? 5 * STEP_MS : STEP_MS);
  }
}
addEventListener("resize", () => { if (last) draw(last); });
ask();
