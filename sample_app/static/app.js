const FIRST_RETRY = 200;
const LONGEST_RETRY = 5000;
// The server says something every 10 s; a line that is silent for longer is dead.
const SILENCE = 25000;
// How often a page in view asks who is live now: its own socket may stay with the release before for a while.
const LOOK = 1000;
const SHOWN = 50;
const LOGGED = 8;
const CLOSES = { 1006: "connection lost", 1011: "server error", 1012: "the server restarts" };

const $ = (id) => document.getElementById(id);
const root = document.documentElement;
const shown = new Map();
let you = null;
let last = null;
let socket;
let attempt = 0;
let retry;
let silence;
let closedAt = null;

function note(text, kind = "") {
  const line = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = new Date().toLocaleTimeString([], { hour12: false });
  line.className = kind;
  line.append(time, text);
  $("log").prepend(line);
  while ($("log").children.length > LOGGED) $("log").lastChild.remove();
}

function state(name, text) {
  document.body.dataset.state = name;
  $("status").textContent = text;
}

function paint(colour) {
  root.style.setProperty("--accent", colour);
  document.querySelector("meta[name=theme-color]").content = colour;
}

function meet(about) {
  const gap = closedAt === null ? null : Math.round(performance.now() - closedAt);
  const serving = `worker ${about.pid} in slot ${about.slot}`;
  if (last === null) {
    note(`Connected to ${serving}.`, "good");
  } else if (about.release !== last.release) {
    note(`Release ${about.release} took over in ${gap} ms, without a reload: ${serving}.`, "good");
  } else {
    note(`Back after ${gap} ms: ${serving}.`, "good");
  }
  const launched = last !== null && (about.release !== last.release || about.slot !== last.slot);
  last = about;
  closedAt = null;
  attempt = 0;
  state("live", "Live");
  paint(about.colour);
  for (const key of ["version", "release", "slot", "pid"]) $(key).textContent = about[key];
  $("berth").dataset.slot = about.slot;
  $("hero").dataset.slot = about.slot;
  if (launched) {
    $("boat").classList.remove("launch");
    $("boat").getBoundingClientRect(); // Without a layout in between, the animation would not start anew.
    $("boat").classList.add("launch");
  }
}

const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });

function ago(date) {
  const seconds = Math.min(0, (date - Date.now()) / 1000);
  if (seconds > -45) return "just now";
  if (seconds > -3600) return relative.format(Math.round(seconds / 60), "minute");
  if (seconds > -86400) return relative.format(Math.round(seconds / 3600), "hour");
  return relative.format(Math.round(seconds / 86400), "day");
}

function show(entry, fresh) {
  if (shown.has(entry.id)) return;
  const item = $("entry").content.firstElementChild.cloneNode(true);
  const find = (selector) => item.querySelector(selector);
  const date = new Date(entry.created_at);
  item.dataset.id = entry.id;
  item.style.setProperty("--hue", parseInt(entry.author, 16) % 360);
  item.classList.toggle("fresh", fresh);
  find(".avatar").textContent = [...entry.name][0].toUpperCase();
  find("strong").textContent = entry.name;
  find(".you").hidden = entry.author !== you;
  find("time").dateTime = date.toISOString();
  find("time").title = date.toLocaleString();
  find("time").textContent = ago(date);
  find(".words").textContent = entry.message;
  find(".berth").dataset.slot = entry.slot;
  find(".via-text").textContent = `taken in by worker ${entry.pid}, release ${entry.release}`;

  const older = [...$("entries").children].find((other) => other.dataset.id < entry.id);
  $("entries").insertBefore(item, older ?? null);
  shown.set(entry.id, item);
  while (shown.size > SHOWN) {
    const oldest = $("entries").lastElementChild;
    shown.delete(Number(oldest.dataset.id));
    oldest.remove();
  }
}

function take(message) {
  if ("you" in message) you = message.you ?? you;
  if (message.about) meet(message.about);
  if ("visitors" in message) $("visitors").textContent = message.visitors;
  if (message.entries) {
    const first = shown.size === 0;
    for (const entry of message.entries) show(entry, !first);
    $("empty").hidden = shown.size > 0;
  }
}

function listen() {
  clearTimeout(silence);
  silence = setTimeout(() => socket.close(), SILENCE);
}

function connect() {
  clearTimeout(retry);
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(`${scheme}//${location.host}/ws`);
  listen();
  socket.onmessage = (event) => {
    listen();
    take(JSON.parse(event.data));
  };
  socket.onclose = (event) => {
    clearTimeout(silence);
    if (closedAt === null) {
      closedAt = performance.now();
      if (last) note(`Closed: ${CLOSES[event.code] ?? `code ${event.code}`}.`, "bad");
    }
    state("waiting", "Reconnecting");
    // Jitter: a thousand pages that lost one worker must not all come back at one moment.
    const pause = Math.min(LONGEST_RETRY, FIRST_RETRY * 2 ** attempt) * (0.75 + Math.random() / 2);
    attempt += 1;
    retry = setTimeout(connect, pause);
  };
}

// The release before keeps its sockets while it drains. This page has nothing to end there, so it moves at once.
async function follow() {
  if (socket.readyState !== WebSocket.OPEN || document.visibilityState !== "visible") return;
  const mine = socket;
  const response = await fetch("/api/about", { cache: "no-store", signal: AbortSignal.timeout(LONGEST_RETRY) });
  if (!response.ok) return;
  const { release } = await response.json();
  if (mine.readyState !== WebSocket.OPEN || last === null || release === last.release) return;
  mine.onclose = null;
  mine.close();
  closedAt = performance.now();
  connect();
}

async function watch() {
  await follow().catch(() => {}); // The socket will tell what is wrong.
  setTimeout(watch, LOOK);
}

function hurry() {
  if (socket.readyState === WebSocket.CLOSED && document.visibilityState === "visible") connect();
}

function complain(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

async function sign(event) {
  event.preventDefault();
  const form = event.target;
  const invalid = form.querySelector(":invalid");
  if (invalid) {
    complain(`Please fill in your ${invalid.name}.`);
    invalid.focus();
    return;
  }
  complain("");
  form.elements.message.readOnly = true;
  try {
    const response = await fetch("/api/entries", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(Object.fromEntries(new FormData(form))),
    });
    const answer = await response.json();
    if (response.status !== 201) throw new Error(answer.detail?.[0]?.msg ?? `Error ${response.status}`);
    you ??= answer.author;
    take({ entries: [answer] });
    form.elements.message.value = "";
    count();
  } catch (error) {
    complain(`Not signed: ${error.message}. Your words are still here; try again.`);
  } finally {
    form.elements.message.readOnly = false;
  }
}

function count() {
  const { value, maxLength } = $("message");
  $("left").textContent = `${maxLength - value.length} left`;
}

paint(document.querySelector("meta[name=theme-color]").content);
$("sign").addEventListener("submit", sign);
$("message").addEventListener("input", count);
addEventListener("online", hurry);
document.addEventListener("visibilitychange", hurry);
setInterval(() => {
  for (const time of document.querySelectorAll(".entries time")) {
    time.textContent = ago(new Date(time.dateTime));
  }
}, 20000);
connect();
watch();
