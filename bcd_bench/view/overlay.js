// ---- landmarks and meshes over the videos -----------------------------------------------------------------------
const STEPS = 1024; // as in overlays.py
const NONE = -32768;
const offered = data.overlays.offered;
let overlayOn = false;

for (const [index, one] of offered.entries()) {
  $("overlay-name").append(make("option", { value: String(index) }, one.name));
}
$("overlay-field").hidden = $("overlay").hidden = $("overlay-key").hidden = !offered.length;
$("overlay-notes").append(...data.overlays.notes.map((note) => make("p", {}, note)));

function overlayParts() {
  return offered.length ? [make("canvas", { "aria-hidden": "true" }), make("span", { class: "without" })] : [];
}

// The points of a clip, once they are read: x of all points of all frames, then y, in steps of the longer side.
const readPoints = new Map();
function pointsOf(source) {
  const key = source.file || source.text;
  if (!readPoints.has(key)) {
    const entry = { points: null };
    readPoints.set(key, entry);
    entry.ready = (source.text ? Promise.resolve(source.text) : textOf(source.file)).then(decode).then((points) => {
      entry.points = points;
    });
    if (readPoints.size > 400) readPoints.delete(readPoints.keys().next().value); // the oldest one is read again if needed
  }
  return readPoints.get(key);
}
// Files are style sheets with one property: the page may read these next to it from a disk, and they cannot run code.
function textOf(file) {
  return new Promise((resolve, reject) => {
    const link = make("link", { rel: "stylesheet", href: file });
    link.onload = () => {
      const property = `--p${file.match(/([0-9a-f]+)\.css$/)[1]}`;
      const text = getComputedStyle($("points")).getPropertyValue(property);
      link.remove();
      text ? resolve(text.trim().slice(1, -1)) : reject(new Error(`${file} has no points`));
    };
    link.onerror = () => {
      link.remove();
      reject(new Error(`${file} cannot be read`));
    };
    document.head.append(link);
  });
}
async function decode(text) {
  const [count, code] = text.split(" ");
  const packed = Uint8Array.from(atob(code), (char) => char.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const [size, n] = [bytes.length / 2, Number(count)];
  const values = new Int16Array(size);
  for (let i = 0; i < size; i += 1) {
    const before = i % (size / 2) < n ? 0 : values[i - n];
    values[i] = before + (bytes[i] | (bytes[size + i] << 8)); // modulo 65536, as it was encoded
  }
  return { n, values, frames: size / (2 * n) };
}

// The frame that a player shows. While it plays, browsers tell it for every new frame; otherwise, the time says it.
const presented = new WeakMap();
function followFrames(video) {
  if (!offered.length) return;
  const { fps } = mediaOf(video);
  const show = (time) => {
    presented.set(video, Math.floor(time * fps + 0.01));
    drawOverlay(video);
  };
  if (video.requestVideoFrameCallback) {
    const follow = (_, { mediaTime }) => {
      show(mediaTime);
      if (video.hasAttribute("src")) video.requestVideoFrameCallback(follow);
    };
    video.requestVideoFrameCallback(follow);
  } else {
    video.onloadeddata = video.onseeked = video.ontimeupdate = () => show(video.currentTime);
  }
}

function drawOverlay(video) {
  const canvas = video.parentNode && video.parentNode.querySelector("canvas");
  if (!canvas) return;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  const without = video.parentNode.querySelector(".without");
  without.textContent = "";
  if (!overlayOn || !video.hasAttribute("src") || !presented.has(video)) return;
  const chosenOverlay = Number($("overlay-name").value);
  const source = mediaOf(video).points[chosenOverlay];
  if (!source || source.none !== undefined) {
    without.textContent = source ? `no points: ${source.none}` : "no points are cached";
    return;
  }
  const entry = pointsOf(source);
  if (entry.points) drawPoints(context, canvas, video, entry.points, offered[chosenOverlay].lines);
  else entry.ready.then(() => drawOverlay(video), () => (without.textContent = "the points cannot be read"));
}

function drawPoints(context, canvas, video, { n, values, frames }, lines) {
  const [width, height] = [video.clientWidth, video.clientHeight].map((side) => Math.round(side * devicePixelRatio));
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const scale = Math.max(width, height) / STEPS;
  const from = Math.min(presented.get(video), frames - 1) * n;
  const [xs, ys] = [values.subarray(from, from + n), values.subarray(frames * n + from, frames * n + from + n)];
  const has = (index) => xs[index] !== NONE && ys[index] !== NONE;
  const thin = Math.max(1, width / 240);
  const path = new Path2D();
  if (lines.length) {
    for (let i = 0; i < lines.length; i += 2) {
      if (!has(lines[i]) || !has(lines[i + 1])) continue;
      path.moveTo(xs[lines[i]] * scale, ys[lines[i]] * scale);
      path.lineTo(xs[lines[i + 1]] * scale, ys[lines[i + 1]] * scale);
    }
  } else {
    for (let i = 0; i < n; i += 1) {
      if (has(i)) path.rect(xs[i] * scale - thin, ys[i] * scale - thin, 2 * thin, 2 * thin);
    }
  }
  const mesh = lines.length > 800; // half of them, so that the face is seen through a mesh
  // A dark edge, so that points and lines are seen on light and on dark pixels.
  context.lineWidth = lines.length ? 2 * thin : thin;
  context.strokeStyle = mesh ? "transparent" : "rgb(0 0 0 / 45%)";
  context.stroke(path);
  context.lineWidth = mesh ? thin / 2 : thin / 1.5;
  context.strokeStyle = context.fillStyle = mesh ? "rgb(77 243 255 / 75%)" : "#4df3ff";
  lines.length ? context.stroke(path) : context.fill(path);
}

function redrawOverlays() {
  const chosenOverlay = offered[Number($("overlay-name").value)];
  $("overlay-use").textContent = chosenOverlay && chosenOverlay.metrics.length ? `used by ${chosenOverlay.metrics.join(", ")}` : "";
  for (const video of document.querySelectorAll("video[src]")) drawOverlay(video);
}
function toggleOverlay() {
  if (!offered.length) return;
  overlayOn = !overlayOn;
  $("overlay").setAttribute("aria-pressed", String(overlayOn));
  redrawOverlays();
}
// The overlay that the chosen metric rests on, if there is one.
function suggestOverlay() {
  const column = data.columns[Number($("metric").value)];
  const index = offered.findIndex((one) => column && one.metrics.includes(column.metric));
  if (index >= 0) $("overlay-name").value = String(index);
  redrawOverlays();
}
$("overlay").addEventListener("click", toggleOverlay);
$("overlay-name").addEventListener("change", () => (overlayOn ? redrawOverlays() : toggleOverlay()));
addEventListener("resize", redrawOverlays);
