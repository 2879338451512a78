const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") element.className = value;
    else if (value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// ---- definitions, on hover and on focus -------------------------------------------------------------------------
const tip = $("tip");
function hideTip() {
  tip.hidden = true;
}
function showTip(element) {
  tip.textContent = element.dataset.tip;
  tip.hidden = false;
  const box = element.getBoundingClientRect();
  const left = Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 8));
  const below = box.bottom + 6 + tip.offsetHeight < innerHeight;
  tip.style.left = `${left}px`;
  tip.style.top = `${below ? box.bottom + 6 : Math.max(4, box.top - tip.offsetHeight - 6)}px`;
}
for (const [show, hide] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
  document.addEventListener(show, (event) => {
    const element = event.target.closest("[data-tip]");
    if (element) showTip(element);
  });
  document.addEventListener(hide, (event) => {
    if (event.target.closest("[data-tip]")) hideTip();
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideTip();
});
addEventListener("scroll", hideTip, { passive: true, capture: true });

// ---- leaderboard ------------------------------------------------------------------------------------------------
function bar(numbers, low, high) {
  const [value, from, to] = numbers;
  if (value === null || !(high > low)) return null;
  const place = (x) => (100 * (x - low)) / (high - low);
  const element = make("span", { class: "bar", "aria-hidden": "true" });
  if (from !== null && to !== null) {
    const interval = make("i");
    interval.style.left = `${place(from)}%`;
    interval.style.width = `${place(to) - place(from)}%`;
    element.append(interval);
  }
  const mark = make("b");
  mark.style.left = `${place(value)}%`;
  element.append(mark);
  return element;
}

function tableRow(line, spans) {
  const label = make("span", line.definition ? { "data-tip": line.definition, tabindex: "0", "aria-describedby": "tip" } : {}, line.label);
  const head = make("th", { scope: "row" }, label);
  if (line.status) head.append(make("small", {}, line.status));
  const cells = line.cells.map((cell, index) => {
    const text = make(cell.mark === "best" ? "strong" : cell.mark === "second" ? "u" : "span", {}, cell.text);
    const td = make("td", {}, text);
    if (cell.dagger) td.append(make("sup", {}, "†"));
    if (cell.interval) td.append(make("small", {}, cell.interval));
    const drawn = spans[index] && bar(cell.numbers, ...spans[index]);
    if (drawn) td.append(drawn);
    return td;
  });
  return make("tr", { class: line.ranked ? undefined : "unranked" }, head, ...cells);
}

// The ends of the scale of each column; none if its values have no interval, as numbers of frames.
function scales(table) {
  return table.headers.map((_, index) => {
    const cells = table.lines.map((line) => line.cells[index].numbers);
    if (!cells.some(([, low]) => low !== null)) return null;
    const all = cells.flat().filter((value) => value !== null);
    const [low, high] = [Math.min(...all), Math.max(...all)];
    return [low - 0.04 * (high - low), high + 0.04 * (high - low)];
  });
}

// Measured rows, and below them those that are quoted from papers: the two are never mixed, also if they are sorted.
function leaderboard(table, level = "h2") {
  const spans = table.transposed ? [] : scales(table);
  const groups = [false, true].map((reported) => ({
    reported, lines: table.lines.filter((line) => line.reported === reported), body: make("tbody"),
  })).filter((group) => group.lines.length);
  const width = String(table.headers.length + 1);
  const draw = (group, lines) => group.body.replaceChildren(
    ...(group.reported ? [make("tr", { class: "divider" }, make("th", { scope: "rowgroup", colspan: width }, "Reported in papers, never ranked"))] : []),
    ...lines.map((line) => tableRow(line, spans)));
  const heads = [];
  function sortBy(index) {
    const head = heads[index + 1];
    const best = index >= 0 && table.headers[index].endsWith("↑") ? "descending" : "ascending";
    const other = best === "ascending" ? "descending" : "ascending";
    const direction = head.getAttribute("aria-sort") === best ? other : best;
    heads.forEach((one) => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    for (const group of groups) {
      draw(group, [...group.lines].sort((a, b) => {
        if (index < 0) return sign * a.label.localeCompare(b.label);
        const [x, y] = [a.cells[index].numbers[0], b.cells[index].numbers[0]];
        if (x === null || y === null) return (x === null) - (y === null);
        return sign * (x - y);
      }));
    }
  }
  [table.corner, ...table.headers].forEach((text, index) => {
    const definition = index ? table.definitions[index - 1] : "";
    const button = make("button", { type: "button", "data-tip": definition || undefined, "aria-describedby": definition ? "tip" : undefined }, text.replace(/ ([↑↓])$/, "\u00a0$1"));
    button.addEventListener("click", () => sortBy(index - 1));
    heads.push(make("th", { scope: "col" }, button));
  });
  for (const group of groups) draw(group, group.lines);
  const region = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Leaderboard of ${table.title}` },
    make("table", { class: "leaderboard" }, make("thead", {}, make("tr", {}, ...heads)), ...groups.map((group) => group.body)));
  const entries = table.headers.flatMap((header, index) =>
    table.definitions[index] ? [make("dt", {}, header), make("dd", {}, table.definitions[index])] : []);
  const notes = make("details", {}, make("summary", {}, "Definitions and notes"),
    make("dl", { class: "definitions" }, ...entries),
    make("ul", { class: "notes" }, ...table.notes.map((note) => make("li", {}, note))));
  const link = table.gallery ? make("p", {}, make("a", { href: table.gallery }, "Videos and values of every pair")) : null;
  return [make(level, {}, table.heading), ...(link ? [link] : []), region, ...(entries.length || table.notes.length ? [notes] : [])];
}
