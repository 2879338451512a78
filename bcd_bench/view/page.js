const PAGE = 20;
const BINS = 24;
const columns = data.columns;
const number = (value, decimals) => {
  const text = value.toFixed(decimals);
  return Number(text) === 0 ? text.replace("-", "") : text;
};
const shown = (value, column) => (value === null ? "–" : number(value, column.decimals));
const arrow = (higher) => (higher === null ? "" : higher ? " ↑" : " ↓");
const columnTitle = (column) => `${column.name}${column.unit ? ` (${column.unit})` : ""}${arrow(column.higher)}`;

// ---- head ---------------------------------------------------------------------------------------------------------
const suite = data.suite;
const title = `${suite.name}@${suite.version}`;
document.title = `${title}: bcd-bench gallery`;
$("title").textContent = title;
const partOf = data.pairs.length < suite.pairs ? `${data.pairs.length} of ${suite.pairs} pairs` : `${suite.pairs} pairs`;
$("subtitle").textContent =
  `${partOf}, ${data.runs.length} ${data.runs.length === 1 ? "run" : "runs"}; pairs ${suite.manifest.slice(0, 12)}; ` +
  `page by bcd-bench ${data.bcd_bench}`;

$("leaderboard").append(
  ...(data.tables.length ? data.tables.flatMap((table) => leaderboard(table)) : [make("p", {}, "None of these runs is scored yet: bcd-bench score RUN")]));

// ---- runs -------------------------------------------------------------------------------------------------------
const facts = [
  ["Run", (run) => run.run], ["Method", (run) => run.method], ["Package", (run) => run.plugin],
  ["Weights", (run) => run.weights || "none"], ["Recipe", (run) => run.recipe || "–"],
  ["bcd-bench", (run) => run.version || "not scored"], ["Seed", (run) => String(run.seed)], ["Device", (run) => run.device],
  ["Pairs", (run) => `${run.finished} of ${run.planned} finished, ${run.failed} failed`],
  ["Notes", (run) => run.notes.join(", ") || "–"],
];
$("runs").append(
  make("thead", {}, make("tr", {}, make("th", { scope: "col" }, ""), ...data.runs.map((run) => make("th", { scope: "col" }, run.label)))),
  make("tbody", {}, ...facts.map(([name, of]) =>
    make("tr", {}, make("th", { scope: "row" }, name), ...data.runs.map((run) => make("td", {}, of(run)))))));

// ---- choice of pairs --------------------------------------------------------------------------------------------
const option = (value, text) => make("option", { value: String(value) }, text);
const choice = { metric: $("metric"), of: $("of"), minus: $("minus"), order: $("order"), label: $("label"), text: $("text") };
for (const [group, headline] of [["Metrics", true], ["Details", false]]) {
  const inside = columns.flatMap((column, index) => (column.headline === headline ? [option(index, columnTitle(column))] : []));
  if (inside.length) choice.metric.append(make("optgroup", { label: group }, ...inside));
}
if (!columns.length) {
  choice.metric.append(option("", "no values"));
  for (const name of ["metric", "of", "minus"]) choice[name].disabled = true;
}
choice.of.append(...data.runs.map((run, index) => option(index, run.label)));
choice.minus.append(option("", "nothing"), ...data.runs.map((run, index) => option(index, run.label)));

function listLabels() {
  const groups = new Map();
  for (const pair of data.pairs) {
    for (const [name, value] of Object.entries(pair.labels)) {
      if (!groups.has(name)) groups.set(name, new Set());
      groups.get(name).add(value);
    }
  }
  choice.label.append(option("", "all"));
  for (const [name, values] of groups) {
    if (values.size > 200) continue; // the text field finds these
    const sorted = [...values].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    choice.label.append(make("optgroup", { label: name },
      ...sorted.map((value) => option(JSON.stringify([name, value]), `${name}: ${value}`))));
  }
}
listLabels();

function chosen() {
  const column = choice.metric.value === "" ? null : columns[Number(choice.metric.value)];
  const minus = choice.minus.value === "" ? null : Number(choice.minus.value);
  return { column, index: Number(choice.metric.value), of: Number(choice.of.value), minus };
}
function valueOf(pair, { column, index, of, minus }) {
  if (column === null) return null;
  const value = pair.values[of][index];
  if (minus === null || value === null) return value;
  const other = pair.values[minus][index];
  return other === null ? null : value - other;
}
const failures = (pair) =>
  [pair.content, pair.motion, pair.target, ...pair.outputs].filter((clip) => clip && clip.failed !== undefined).length;

function listOrders() {
  const { column } = chosen();
  const kept = choice.order.value || "suite";
  const known = column !== null && column.higher !== null;
  const names = [["suite", "as in the suite"], ["failed", "failed first"]];
  if (column !== null) names.splice(1, 0, ["best", known ? "best first" : "highest first"], ["worst", known ? "worst first" : "lowest first"]);
  choice.order.replaceChildren(...names.map(([value, text]) => option(value, text)));
  choice.order.value = names.some(([value]) => value === kept) ? kept : "suite";
}

let listed = data.pairs;
let page = 0;
function select() {
  const words = choice.text.value.toLowerCase().split(/\s+/).filter(Boolean);
  const label = choice.label.value ? JSON.parse(choice.label.value) : null;
  const state = chosen();
  listed = data.pairs.filter((pair) => {
    if (label !== null && pair.labels[label[0]] !== label[1]) return false;
    if (!words.length) return true;
    const text = [pair.id, ...Object.entries(pair.labels).map(([name, value]) => `${name}=${value} ${name}: ${value}`)].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  });
  const order = choice.order.value;
  if (order === "failed") listed.sort((a, b) => failures(b) - failures(a));
  else if (order !== "suite") {
    const higher = state.column.higher !== false;
    const sign = (order === "best") === higher ? -1 : 1;
    const values = new Map(listed.map((pair) => [pair, valueOf(pair, state)]));
    listed.sort((a, b) => {
      const [x, y] = [values.get(a), values.get(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (x - y);
    });
  }
  drawHistogram(state);
  showPage(0);
}

// ---- histogram --------------------------------------------------------------------------------------------------
function drawHistogram(state) {
  const { column } = state;
  $("definition").textContent = column === null ? "" : `${column.name}: ${column.definition || "no definition"}`;
  if (column === null) return $("histogram").replaceChildren();
  const series = state.minus === null
    ? data.runs.map((run, index) => [run.label, listed.map((pair) => valueOf(pair, { ...state, of: index }))])
    : [[`${data.runs[state.of].label} − ${data.runs[state.minus].label}`, listed.map((pair) => valueOf(pair, state))]];
  const every = series.flatMap(([, values]) => values.filter((value) => value !== null));
  if (!every.length) return $("histogram").replaceChildren();
  let [low, high] = every.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
  if (state.minus !== null) [low, high] = [Math.min(low, 0), Math.max(high, 0)];
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const counts = series.map(([, values]) => {
    const bins = new Array(BINS).fill(0);
    for (const value of values) if (value !== null) bins[Math.min(BINS - 1, Math.floor((BINS * (value - low)) / (high - low)))] += 1;
    return bins;
  });
  const top = Math.max(...counts.flat());
  const figures = series.map(([name, values], index) => {
    const scored = values.filter((value) => value !== null).length;
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${BINS} 10`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `Histogram of ${column.name}, ${name}: ${scored} pairs from ${shown(low, column)} to ${shown(high, column)}`);
    counts[index].forEach((count, place) => {
      if (!count) return;
      const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const height = (10 * count) / top;
      for (const [key, value] of [["x", place + 0.06], ["y", 10 - height], ["width", 0.88], ["height", height]]) rect.setAttribute(key, value);
      svg.append(rect);
    });
    return make("figure", {}, make("figcaption", {}, `${name}, ${scored} ${scored === 1 ? "pair" : "pairs"}`), svg,
      make("div", { class: "ends" }, make("span", {}, shown(low, column)), make("span", {}, columnTitle(column)), make("span", {}, shown(high, column))));
  });
  $("histogram").replaceChildren(...figures);
}

// ---- pairs ------------------------------------------------------------------------------------------------------
// A video has its file only while it is on the screen or near it: browsers allow a limited number of players.
const onScreen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting && !target.hasAttribute("src")) attach(target);
    else if (!isIntersecting && target.hasAttribute("src")) detach(target);
  }
}, { rootMargin: "400px 0px" });
function attach(video) {
  video.src = data.media[Number(video.dataset.media)].src;
  followFrames(video);
  if (current && current.videos.includes(video)) settle();
}
function detach(video) {
  video.pause();
  video.removeAttribute("src");
  video.load();
  drawOverlay(video);
}

function clipFigure(name, clip, values) {
  const figure = make("figure", {}, make("figcaption", {}, name));
  if (clip.media !== undefined) {
    const media = data.media[clip.media];
    const video = make("video", { playsinline: "", preload: "auto", "data-media": clip.media, "aria-label": name, tabindex: "-1" });
    video.muted = true;
    video.addEventListener("error", () => {
      if (video.hasAttribute("src")) screen.replaceWith(make("div", { class: "message failed" }, "This browser cannot play the preview."));
    });
    const screen = make("div", { class: "screen" }, video, ...overlayParts());
    screen.style.aspectRatio = `${media.width} / ${media.height}`;
    figure.append(screen);
  } else if (clip.failed !== undefined) {
    figure.append(make("div", { class: "message failed" }, make("strong", {}, "failed"), `: ${clip.failed}`));
  } else {
    figure.append(make("div", { class: "message" }, clip.absent));
  }
  if (values) figure.append(values);
  return figure;
}

function chosenValue(pair, run, { column, index }) {
  if (column === null) return null;
  return make("p", { class: "chosen" }, `${columnTitle(column)} `, make("strong", {}, shown(pair.values[run][index], column)));
}

function valueTable(pair) {
  const head = ["", ...data.runs.map((run) => run.label)].map((text) => make("th", { scope: "col" }, text));
  const rows = columns.map((column, index) =>
    make("tr", {}, make("th", { scope: "row" }, columnTitle(column)), ...data.runs.map((_, run) => make("td", {}, shown(pair.values[run][index], column)))));
  return make("div", { class: "scroll every", tabindex: "0", role: "region", "aria-label": `Values of ${pair.id}` },
    make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows)));
}

// "content: subject 3, hair 1 · motion: subject 8": the role of a clip once, before its labels.
function labelText(labels) {
  const groups = new Map();
  for (const [name, value] of Object.entries(labels)) {
    const role = ["content", "motion"].find((one) => name.startsWith(`${one} `)) || "";
    if (!groups.has(role)) groups.set(role, []);
    groups.get(role).push(`${role ? name.slice(role.length + 1) : name} ${value}`);
  }
  return [...groups].map(([role, parts]) => (role ? `${role}: ` : "") + parts.join(", ")).join(" · ");
}

function pairArticle(pair, place, state) {
  const labels = labelText(pair.labels);
  const head = make("header", {}, make("h3", {}, `${place + 1}. ${pair.id}`), make("p", { class: "muted labels" }, labels));
  if (state.minus !== null && state.column) {
    const value = valueOf(pair, state);
    const text = `${data.runs[state.of].label} − ${data.runs[state.minus].label}, ${columnTitle(state.column)}: `;
    head.append(make("p", { class: "difference" }, text, make("strong", {}, shown(value, state.column))));
  }
  const clips = make("div", { class: "clips" });
  clips.append(clipFigure("content", pair.content), clipFigure("motion", pair.motion));
  data.runs.forEach((run, index) => clips.append(clipFigure(run.label, pair.outputs[index], chosenValue(pair, index, state))));
  if (pair.target) clips.append(clipFigure("target", pair.target));
  const article = make("article", { tabindex: "-1", "aria-label": `Pair ${pair.id}` }, head, clips, columns.length ? valueTable(pair) : null);
  const entry = { pair, article, videos: [...clips.querySelectorAll("video")] };
  article.addEventListener("click", (event) => {
    const again = current === entry;
    choose(entry, false);
    if (event.target.closest(".screen")) setPlaying(again ? !playing : true);
  });
  return entry;
}

let entries = [];
let current = null;
function showPage(number, last = false) {
  onScreen.disconnect();
  for (const entry of entries) entry.videos.forEach(detach);
  const pages = Math.max(1, Math.ceil(listed.length / PAGE));
  page = Math.max(0, Math.min(pages - 1, number));
  const state = chosen();
  const first = page * PAGE;
  entries = listed.slice(first, first + PAGE).map((pair, index) => pairArticle(pair, first + index, state));
  current = null;
  $("list").replaceChildren(...(entries.length ? entries.map((entry) => entry.article) : [make("p", {}, "No pair fits the filter.")]));
  for (const entry of entries) entry.videos.forEach((video) => onScreen.observe(video));
  const text = listed.length ? `Pairs ${first + 1}–${first + entries.length} of ${listed.length}` : "No pairs";
  $("count").textContent = text;
  $("count-below").textContent = text;
  for (const button of document.querySelectorAll("[data-page]")) {
    const to = page + Number(button.dataset.page);
    button.disabled = to < 0 || to >= pages;
  }
  if (entries.length) choose(entries[last ? entries.length - 1 : 0], false);
  else {
    setPlaying(false);
    showFrame();
  }
}

// ---- playback of the selected pair ------------------------------------------------------------------------------
let playing = false;
let time = 0; // seconds; the clock of the selected pair
let ticked = 0;
const speed = () => Number($("speed").value);
const mediaOf = (video) => data.media[Number(video.dataset.media)];
const length = (media) => media.frames / media.fps;
// The longest clip of the pair; while it plays, it is the clock, so that a slow start does not make the others jump.
const leadVideo = () =>
  current ? current.videos.reduce((a, b) => (a && length(mediaOf(a)) >= length(mediaOf(b)) ? a : b), null) : null;
const leader = () => {
  const video = leadVideo();
  return video && mediaOf(video);
};

// Sets every player to the frame of the clock; while playing, only those that are off by more than half a frame.
function settle() {
  for (const video of current ? current.videos : []) {
    if (!video.hasAttribute("src")) continue;
    const media = mediaOf(video);
    const frame = Math.min(media.frames - 1, Math.floor(time * media.fps + 1e-6));
    const last = frame === media.frames - 1 && time >= length(media) - 0.5 / media.fps;
    const wanted = playing && !last ? Math.min(time, length(media)) : (frame + 0.5) / media.fps;
    const off = Math.abs(video.currentTime - wanted);
    if (playing && !last) {
      video.playbackRate = speed();
      if (off > 1.5 / media.fps && !video.seeking) video.currentTime = wanted;
      if (video.paused) video.play().catch(() => video.pause()); // such as when the file is taken away meanwhile
    } else {
      if (!video.paused) video.pause();
      if (off > 0.4 / media.fps) video.currentTime = wanted;
    }
  }
  showFrame();
}
function showFrame() {
  const media = leader();
  const frame = media ? Math.min(media.frames - 1, Math.floor(time * media.fps + 1e-6)) : 0;
  $("seek").max = media ? media.frames - 1 : 0;
  $("seek").value = frame;
  $("frame").textContent = media ? `${frame + 1} / ${media.frames}` : "–";
  $("selected").textContent = current ? current.pair.id : "";
}
function tick(now) {
  if (!playing) return;
  const media = leader();
  if (media) {
    const video = leadVideo();
    const runs = video.hasAttribute("src") && !video.paused && !video.seeking && video.readyState > 2;
    time = runs ? video.currentTime : time + ((now - ticked) / 1000) * speed();
    ticked = now;
    if (time >= length(media)) time = 0;
    settle();
  }
  requestAnimationFrame(tick);
}
function setPlaying(on) {
  if (on === playing) return;
  playing = on && leader() !== null;
  $("play").classList.toggle("playing", playing);
  $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  if (playing) {
    ticked = performance.now();
    requestAnimationFrame(tick);
  }
  settle();
}
function step(frames) {
  const media = leader();
  if (!media) return;
  setPlaying(false);
  const frame = Math.floor(time * media.fps + 1e-6) + frames;
  time = (((frame % media.frames) + media.frames) % media.frames) / media.fps;
  settle();
}
function choose(entry, scroll) {
  if (current !== entry) {
    if (current) {
      current.article.removeAttribute("aria-current");
      current.videos.forEach((video) => video.pause());
    }
    current = entry;
    current.article.setAttribute("aria-current", "true");
    time = 0;
    settle();
  }
  if (scroll) {
    entry.article.focus({ preventScroll: true });
    entry.article.scrollIntoView({ block: "nearest" });
  }
}
function move(by) {
  if (!current) return;
  const index = entries.indexOf(current) + by;
  if (entries[index]) choose(entries[index], true);
  else if (page * PAGE + index >= 0 && page * PAGE + index < listed.length) {
    showPage(page + by, by < 0);
    choose(current, true);
  }
}

// ---- controls ---------------------------------------------------------------------------------------------------
$("controls").addEventListener("submit", (event) => event.preventDefault());
choice.metric.addEventListener("change", () => {
  listOrders();
  suggestOverlay();
  select();
});
for (const name of ["of", "minus", "order", "label"]) choice[name].addEventListener("change", select);
let typed = 0;
choice.text.addEventListener("input", () => {
  clearTimeout(typed);
  typed = setTimeout(select, 120);
});
for (const button of document.querySelectorAll("[data-page]")) {
  button.addEventListener("click", () => {
    showPage(page + Number(button.dataset.page));
    $("pairs-title").scrollIntoView();
  });
}
$("play").addEventListener("click", () => setPlaying(!playing));
$("back").addEventListener("click", () => step(-1));
$("forward").addEventListener("click", () => step(1));
$("previous").addEventListener("click", () => move(-1));
$("next").addEventListener("click", () => move(1));
$("speed").addEventListener("change", () => settle());
$("seek").addEventListener("input", () => {
  const media = leader();
  if (!media) return;
  setPlaying(false);
  time = Number($("seek").value) / media.fps;
  settle();
});
const keys = {
  " ": () => setPlaying(!playing), ArrowLeft: () => move(-1), ArrowRight: () => move(1), ",": () => step(-1), ".": () => step(1),
  o: toggleOverlay,
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const inField = event.target.closest("input, select, textarea");
  const pressable = event.target.closest("button, summary");
  const scrolls = event.target.closest(".scroll") && event.key.startsWith("Arrow"); // a table that scrolls sideways
  if (inField || scrolls || (pressable && event.key === " ") || !keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});

$("every").addEventListener("change", () => $("list").classList.toggle("all", $("every").checked));

const first = columns.findIndex((column) => column.headline && column.scale === 1); // rates say little about a pair
if (first >= 0) choice.metric.value = String(first);
listOrders();
suggestOverlay();
select();
