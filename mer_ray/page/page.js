"use strict";
// Names of songs and words are anybody's text: they reach the page by textContent alone.
const data = JSON.parse(document.getElementById("data").textContent);
const { songs, words } = data;
const ROWS = 60;
const GREY = "#8d97a1";
const byId = (id) => document.getElementById(id);
const count = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
const colour = (word) => words[word]?.colour ?? GREY;
const titled = (at) => songs.titles[at] ?? songs.ids[at];
const tagged = (at) => songs.tags[at].map(([word, percentile]) => `${words[word].label} ${percentile.toFixed(2)}`).join(", ");
const texts = songs.ids.map((id, at) =>
  [id, songs.titles[at], songs.artists[at], songs.albums[at], songs.isrcs[at],
    ...songs.tags[at].map(([word]) => words[word].label)].filter(Boolean).join("\n").toLowerCase());
const state = { matching: songs.ids.map((_, at) => at), word: null, rows: ROWS, playing: null, tried: 0 };

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function songRow(at, figure) {
  const row = element("button", undefined, songs.links[at] === null ? "song mute" : "song");
  const name = element("span", titled(at));
  const about = [songs.artists[at], songs.albums[at], tagged(at)].filter(Boolean).join(" · ");
  name.append(element("small", about));
  row.append(name);
  if (figure !== undefined) row.append(element("i", figure));
  row.dataset.song = at;
  row.title = songs.ids[at];
  row.onclick = () => play(at);
  const item = element("li");
  item.append(row);
  return item;
}

// ---- playing

function play(at) {
  state.playing = at;
  state.tried = 0;
  byId("player").hidden = false;
  byId("trouble").hidden = true;
  byId("nowtitle").textContent = [titled(at), songs.artists[at]].filter(Boolean).join(" – ");
  byId("nowtags").textContent = tagged(at);
  drawStrip(at);
  for (const row of document.querySelectorAll(".song")) row.classList.toggle("playing", +row.dataset.song === at);
  if (data.map) Plotly.restyle("map", { x: [[songs.x[at]]], y: [[songs.y[at]]] }, [2]);
  attempt();
}

function attempt() {
  const audio = byId("audio");
  const ending = songs.links[state.playing];
  const places = ending === null ? [] : /^https?:/.test(ending) ? [ending] : data.roots.map((root) => root + ending);
  if (state.tried >= places.length) {
    audio.removeAttribute("src");
    byId("trouble").textContent = data.mute ?? `Not found, or this browser cannot play it: ${songs.ids[state.playing]}`;
    byId("trouble").hidden = false;
    return;
  }
  audio.src = places[state.tried++];
  audio.play().catch(() => {}); // a failure comes as an error of the element, a refusal leaves its button
}

function drawStrip(at) {
  const strip = byId("strip");
  const line = songs.lines[at] ?? [];
  strip.replaceChildren();
  strip.hidden = !line.length;
  line.forEach((word, window) => {
    const piece = element("button", word === null ? "" : words[word].label);
    piece.style.background = word === null ? GREY : colour(word);
    piece.title = `${window * data.windowSeconds} s: ${piece.textContent || "no word"}`;
    piece.onclick = () => { byId("audio").currentTime = window * data.windowSeconds; };
    strip.append(piece);
  });
}

byId("audio").addEventListener("error", () => { if (state.playing !== null) attempt(); });
byId("audio").addEventListener("timeupdate", () => {
  const here = Math.floor(byId("audio").currentTime / data.windowSeconds);
  [...byId("strip").children].forEach((piece, window) => piece.classList.toggle("here", window === here));
});

// ---- the map

function points() {
  const chosen = new Uint8Array(songs.ids.length);
  for (const at of state.matching) chosen[at] = 1;
  const rest = songs.ids.map((_, at) => at).filter((at) => !chosen[at]);
  const many = songs.ids.length > 4000;
  const size = many ? 4 : songs.ids.length > 500 ? 7 : 10;
  const style = getComputedStyle(document.documentElement);
  const trace = (indices, marker) => ({
    type: "scattergl", mode: "markers", hoverinfo: "none", customdata: indices,
    x: indices.map((at) => songs.x[at]), y: indices.map((at) => songs.y[at]), marker,
  });
  const painted = state.matching.map((at) => colour(state.word ?? songs.tags[at][0]?.[0]));
  const now = state.playing === null ? [] : [state.playing];
  return [
    trace(rest, { size, color: style.getPropertyValue("--dim").trim(), opacity: 0.45 }),
    trace(state.matching, { size, color: painted, opacity: many ? 0.75 : 0.9 }),
    trace(now, { size: size + 10, symbol: "circle-open", line: { width: 3 }, color: style.getPropertyValue("--ink").trim() }),
  ];
}

function layout() {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(name).trim();
  const axis = (low, name, high) => ({
    title: { text: `← ${low}     ${name}     ${high} →`, font: { size: 12 } }, range: [-1.35, 1.35],
    zeroline: true, zerolinecolor: value("--line"), gridcolor: value("--line"), showticklabels: false, color: value("--soft"),
  });
  const shown = words.filter((word) => word.colour && word.x !== undefined);
  return {
    margin: { l: 34, r: 8, t: 8, b: 34 }, showlegend: false, dragmode: "pan", hovermode: "closest", uirevision: "map",
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", font: { family: "system-ui, sans-serif" },
    xaxis: axis("unpleasant", "valence", "pleasant"), yaxis: axis("calm", "arousal", "excited"),
    annotations: shown.map((word) => ({
      x: word.x * 1.15, y: word.y * 1.15, text: escaped(word.label), showarrow: false,
      font: { size: 13, color: value("--ink") }, bgcolor: value("--back"), opacity: 0.85, bordercolor: word.colour, borderpad: 2,
    })),
  };
}

// Plotly reads some tags in its texts.
const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function drawMap() {
  if (!data.map) return;
  Plotly.react("map", points(), layout(), { responsive: true, scrollZoom: true, displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "toImage", "zoom2d", "pan2d", "autoScale2d"] });
}

function listenToMap() {
  byId("mapbox").hidden = !data.map;
  byId("views").classList.toggle("nomap", !data.map);
  if (!data.map) return;
  const map = byId("map");
  map.on("plotly_click", (event) => play(event.points[0].customdata));
  map.on("plotly_hover", ({ points: [point], event }) => {
    const tip = byId("tip");
    const box = byId("mapbox").getBoundingClientRect();
    tip.replaceChildren(element("b", titled(point.customdata)), element("br"),
      document.createTextNode([songs.artists[point.customdata], tagged(point.customdata)].filter(Boolean).join(" · ")));
    tip.style.left = `${Math.min(event.clientX - box.left + 12, box.width - 200)}px`;
    tip.style.top = `${event.clientY - box.top + 14}px`;
    tip.hidden = false;
  });
  map.on("plotly_unhover", () => { byId("tip").hidden = true; });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);
}

// ---- search and words

function filter() {
  const asked = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const has = (at) => state.word === null || songs.tags[at].some(([word]) => word === state.word);
  state.matching = songs.ids.map((_, at) => at).filter((at) => has(at) && asked.every((part) => texts[at].includes(part)));
  if (state.word !== null) {
    const percentile = (at) => songs.tags[at].find(([word]) => word === state.word)[1];
    state.matching.sort((one, other) => percentile(other) - percentile(one));
  }
  state.rows = ROWS;
  byId("found").textContent = `${count(state.matching.length, "song", "songs")}`;
  drawList();
  drawMap();
}

function drawList() {
  byId("list").replaceChildren(...state.matching.slice(0, state.rows).map((at) => songRow(at)));
  byId("more").hidden = state.rows >= state.matching.length;
}

function choose(word) {
  state.word = state.word === word ? null : word;
  for (const chip of byId("chips").children) chip.setAttribute("aria-pressed", String(+chip.dataset.word === state.word));
  filter();
}

function drawChips() {
  byId("chips").append(...words.map((word, at) => {
    const chip = element("button", undefined, "chip");
    const dot = element("span", undefined, "dot");
    dot.style.background = colour(at);
    chip.append(dot, document.createTextNode(word.label));
    chip.dataset.word = at;
    chip.setAttribute("aria-pressed", "false");
    chip.onclick = () => choose(at);
    return chip;
  }));
}

function drawWords() {
  byId("wordlist").append(...words.map((word, at) => {
    const entry = element("details");
    const head = element("summary");
    const bar = element("div", undefined, "bar");
    const fill = element("span");
    fill.style.width = `${100 * word.share}%`;
    fill.style.background = colour(at);
    bar.append(fill);
    head.append(element("span", word.label), bar, element("span", `${(100 * word.share).toFixed(1)} %, ${count(word.given, "song", "songs")}`, "share"));
    entry.append(head);
    entry.addEventListener("toggle", () => { if (entry.open && entry.children.length === 1) entry.append(extremes(word)); });
    return entry;
  }));
}

function extremes(word) {
  const pair = element("div", undefined, "pair");
  for (const [heading, found] of [["Suits best", word.best], ["Suits worst", word.worst]]) {
    const side = element("div");
    const list = element("ol");
    list.append(...found.map(([at, percentile]) => songRow(at, percentile.toFixed(2))));
    side.append(element("h3", found.length ? heading : "The songs' vectors are not at hand: no best and worst"), list);
    pair.append(side);
  }
  return pair;
}

// ---- the rest, from top to foot

function drawTexts() {
  byId("summary").textContent = data.summary;
  byId("untrained").hidden = !data.untrained;
  byId("untrained").textContent = data.untrained ?? "";
  for (const [name, value] of data.facts) byId("facts").append(element("dt", name), element("dd", value));
  byId("mapnote").textContent = data.mapnote;
  byId("wordnote").textContent = data.wordnote;
  byId("failures").hidden = !data.failures.length;
  for (const { kind, songs: n, examples, mend } of data.failures) {
    const entry = element("details");
    entry.open = data.failures.length < 4;
    const head = element("summary");
    head.append(element("b", kind), element("span"), element("span", count(n, "song", "songs"), "share"));
    entry.append(head, ...examples.map(([id, error]) => element("p", `${id}: ${error}`)));
    if (mend) entry.append(element("p", mend, "note"));
    byId("failed").append(entry);
  }
  for (const [text, code] of data.made) {
    byId("made").append(element("p", text));
    if (code) byId("made").append(element("pre", code));
  }
}

byId("search").addEventListener("input", filter);
byId("more").onclick = () => { state.rows += ROWS * 5; drawList(); };
drawTexts();
drawChips();
drawWords();
filter();
listenToMap();
