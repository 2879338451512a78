"use strict";
// Everything from the data enters the page as text, never as markup. The page talks to its own server only, or, if it has
// all items itself, to nobody.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const questions = data.questions;
  const roles = ["content", "motion", "video"];
  const still = matchMedia("(prefers-reduced-motion: reduce)");

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "class") element.className = value;
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  // ---- where answers go: a server, or this browser ------------------------------------------------------------------
  class Refused extends Error {}

  const server = {
    async ask(path, body) {
      let answer;
      try {
        answer = await fetch(path, {
          method: body === undefined ? "GET" : "POST",
          headers: body === undefined ? {} : { "Content-Type": "application/json" },
          body: body === undefined ? undefined : JSON.stringify(body),
        });
      } catch {
        throw new Error("No connection. Your answers are kept on this page: try again in a moment.");
      }
      const content = await answer.json().catch(() => ({}));
      if (answer.status >= 500) throw new Error("The server has a problem. Your answers are kept on this page: try again.");
      if (!answer.ok) throw new Refused(content.error ?? `error ${answer.status}`);
      return content;
    },
    state: () => server.ask("api/state"),
    start: () => server.ask("api/start", {}),
    rate: (rating) => server.ask("api/rating", rating),
  };

  const KEY = `${data.study}/${data.slot}`;
  const local = {
    load() {
      try {
        return JSON.parse(localStorage.getItem(KEY)) ?? null;
      } catch {
        return local.memory ?? null; // storage is not allowed in some frames
      }
    },
    save(kept) {
      local.memory = kept;
      try {
        localStorage.setItem(KEY, JSON.stringify(kept));
      } catch {
        return;
      }
    },
    async state() {
      const kept = local.load();
      if (kept === null) return { started: false };
      const rated = new Set(kept.ratings.map((rating) => rating.item));
      const left = data.items.filter((item) => !rated.has(item.id));
      return {
        started: true, total: data.items.length, done: data.items.length - left.length, item: left[0] ?? null,
        next: left[1] ?? null, code: left.length ? null : kept.rater,
      };
    },
    async start() {
      if (local.load() === null) {
        const bytes = crypto.getRandomValues(new Uint8Array(8));
        local.save({ rater: [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(""), ratings: [] });
      }
      return local.state();
    },
    async rate(rating) {
      const kept = local.load();
      if (!kept.ratings.some((other) => other.item === rating.item)) kept.ratings.push(rating);
      local.save(kept);
      return local.state();
    },
    csv() {
      const kept = local.load();
      const keys = questions.map((question) => question.key);
      const rows = kept.ratings.map((one) =>
        [data.study, data.slot, kept.rater, one.item, ...keys.map((key) => one.scores[key]), one.seconds.toFixed(1)]);
      return [["study", "slot", "rater", "item", ...keys, "seconds"], ...rows].map((row) => `${row.join(",")}\n`).join("");
    },
  };
  const backend = data.items === null ? server : local;

  // ---- the form -----------------------------------------------------------------------------------------------------
  let item = null;
  let shownAt = 0;
  let seen = false;
  let sending = false;

  document.title = data.title;
  $("title").textContent = data.title;
  for (const paragraph of data.consent.split(/\n\s*\n/)) $("consent").append(make("p", {}, paragraph));
  questions.forEach((question) => {
    const scale = make("div", { class: "scale" });
    data.scale.forEach((score) => {
      const end = score === data.scale[0] ? `, ${question.lowest}` : score === data.scale.at(-1) ? `, ${question.highest}` : "";
      const input = make("input", { type: "radio", name: question.key, value: score, "aria-label": `${score}${end}` });
      scale.append(make("label", {}, input, make("span", { "aria-hidden": "true" }, String(score))));
    });
    const ends = make("span", { class: "ends", "aria-hidden": "true" },
      make("span", {}, `1: ${question.lowest}`), make("span", {}, `5: ${question.highest}`));
    const title = question.name[0].toUpperCase() + question.name.slice(1);
    $("questions").append(make("fieldset", {},
      make("legend", {}, make("strong", {}, title), make("span", { "data-text": question.key }, question.text)),
      make("div", {}, scale, ends)));
  });

  const inputs = (key) => [...document.querySelectorAll(`input[name="${key}"]`)];
  const answer = (key) => inputs(key).find((input) => input.checked)?.value;
  const firstOpen = () => questions.find((question) => answer(question.key) === undefined);

  function update() {
    const open = questions.filter((question) => answer(question.key) === undefined).length;
    const ready = open === 0 && seen;
    $("submit").setAttribute("aria-disabled", String(!ready || sending));
    const words = [];
    if (!seen) words.push("watch the video to its end");
    if (open) words.push(`answer ${open} more ${open === 1 ? "question" : "questions"}`);
    const text = words.join(", ");
    $("missing").textContent = text && text[0].toUpperCase() + text.slice(1);
    return ready;
  }

  // ---- videos: all three together -----------------------------------------------------------------------------------
  const videos = roles.map($);
  const main = $("video");
  const UNPLAYABLE = "A video cannot be played. Trying again; if this does not help, use another browser.";
  function setPlaying(on) {
    for (const video of videos) {
      if (on) video.play().catch(() => update());
      else video.pause();
    }
    $("play").textContent = on ? "Pause" : "Play";
  }
  $("play").addEventListener("click", () => setPlaying(main.paused));
  let before = 0;
  main.addEventListener("timeupdate", () => {
    const now = main.currentTime;
    if (!seen && (now < before || main.ended || now >= main.duration - 0.3)) {
      seen = true;
      update();
    }
    before = now;
  });
  for (const video of videos) {
    video.addEventListener("error", () => {
      if (!video.getAttribute("src")) return;
      problem(UNPLAYABLE);
      setTimeout(() => {
        video.load();
        setPlaying(true);
      }, 2000);
    });
    video.addEventListener("loadeddata", () => {
      if ($("problem").textContent === UNPLAYABLE && videos.every((one) => one.error === null)) problem("");
    });
  }

  function problem(text) {
    $("problem").textContent = text;
  }

  // ---- screens ------------------------------------------------------------------------------------------------------
  function show(state) {
    for (const id of ["welcome", "task", "finished"]) $(id).hidden = true;
    problem("");
    $("progress").hidden = !state.started;
    if (!state.started) {
      $("welcome").hidden = false;
      return;
    }
    $("bar").max = state.total;
    $("bar").value = state.done;
    item = state.item;
    if (item === null) {
      setPlaying(false);
      $("count").textContent = `${state.total} of ${state.total}`;
      $("finished").hidden = false;
      $("code").textContent = state.code;
      $("thanks").textContent = backend === server
        ? "Your answers are stored. You can close this page."
        : "Your answers are in this browser only. Save the file and send it to those who asked you.";
      if (backend === local) {
        $("results").hidden = false;
        $("csv").value = local.csv();
      }
      $("main").focus();
      return;
    }
    $("count").textContent = item.practice ? "Practice" : `Video ${state.done} of ${state.total - 1}`;
    $("notice").hidden = !item.practice && item.asked === null;
    $("notice").textContent = item.practice
      ? "Practice: this first video does not count. The two smaller videos are references."
      : "Attention check: do not rate this video. Choose the answers that are asked for below.";
    for (const question of questions) {
      document.querySelector(`[data-text="${question.key}"]`).textContent =
        item.asked === null ? question.text : `Please choose ${item.asked[question.key]} here.`;
      for (const input of inputs(question.key)) input.checked = false;
    }
    $("task").hidden = false;
    roles.forEach((role, index) => {
      if (videos[index].getAttribute("src") !== item[role]) videos[index].src = item[role];
      else videos[index].currentTime = 0;
    });
    seen = false;
    before = 0;
    shownAt = performance.now();
    setPlaying(!still.matches);
    if (state.next !== null && backend === server) fetch(state.next.video).catch(() => undefined); // for the cache
    update();
    inputs(questions[0].key)[0].focus({ preventScroll: true });
    scrollTo(0, 0);
  }

  async function send(action) {
    if (sending) return;
    sending = true;
    update();
    try {
      const state = await action();
      sending = false;
      show(state);
    } catch (error) {
      sending = false;
      if (error instanceof Refused) {
        try {
          show(await backend.state()); // such as after a rating in another window
        } catch (second) {
          error = second;
        }
      }
      problem(error.message);
      update();
    }
  }

  $("agree").addEventListener("click", () => send(() => backend.start()));
  function submit() {
    if (!update()) {
      const open = firstOpen();
      if (open) inputs(open.key)[0].focus();
      return;
    }
    const scores = Object.fromEntries(questions.map((question) => [question.key, Number(answer(question.key))]));
    const seconds = Math.min(86400, Math.round((performance.now() - shownAt) / 100) / 10);
    const rated = item.id;
    send(() => backend.rate({ item: rated, scores, seconds }));
  }
  $("task").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  $("task").addEventListener("change", update);

  addEventListener("keydown", (event) => {
    if ($("task").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    const inside = document.activeElement?.closest("fieldset");
    if (/^[1-5]$/.test(event.key)) {
      const fieldsets = [...document.querySelectorAll("fieldset")];
      const open = firstOpen();
      const index = inside ? fieldsets.indexOf(inside) : open ? questions.indexOf(open) : -1;
      if (index < 0) return;
      const input = inputs(questions[index].key)[Number(event.key) - 1];
      input.checked = true;
      input.focus();
      update();
      if (index + 1 < questions.length) {
        const key = questions[index + 1].key;
        (inputs(key).find((one) => one.checked) ?? inputs(key)[0]).focus();
      } else $("submit").focus();
      event.preventDefault();
    } else if (event.key === "Enter" && inside) {
      submit();
      event.preventDefault();
    }
  });

  $("save").addEventListener("click", () => {
    const address = URL.createObjectURL(new Blob([local.csv()], { type: "text/csv" }));
    make("a", { href: address, download: `ratings-${local.load().rater}.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  });

  send(() => backend.state());
})();
