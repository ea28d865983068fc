// One question at a time. Each key press is an event that goes to the server; what it does not take waits in this browser.
import { Outbox } from "/outbox.js";
import { Marking, markOf, showMark } from "/marking.js";

const $ = (id) => document.getElementById(id);
const RETRY = 2000, LOOK = 5000; // ms
let about = null, who = "", item = null, at = 0, busy = true, marking = null, history = [], clock = { sum: 0, since: performance.now() };

const outbox = new Outbox(post, (waiting, why) => {
  $("alert").hidden = !waiting;
  $("alert").textContent = waiting ? `${why} ${waiting} entries wait in this browser and are sent again.` : "";
}, (reply) => {
  if (reply.progress) progress(reply.progress);
  if (reply.also?.length) say(`${reply.also.join(", ")} judged this question too: both are kept, and count for agreement.`);
});

async function post(path, asked) {
  let response;
  try {
    response = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(asked) });
  } catch {
    throw Object.assign(new Error("The server does not answer."), { later: true });
  }
  const found = await response.json().catch(() => ({ error: `The server refuses (${response.status}).` }));
  if (!response.ok) throw Object.assign(new Error(found.error), { later: response.status >= 500 });
  return found;
}

function say(text) { $("status").textContent = text; }

function fault(error, again) {
  $("alert").hidden = error.later && !$("end").hidden; // between rounds no server is there
  $("alert").textContent = error.message;
  if (error.later) setTimeout(again, RETRY);
}

async function start() {
  try { about = await post("/about", {}); } catch (error) { return fault(error, start); }
  $("alert").hidden = true;
  document.title = $("title").textContent = about.title;
  $("guideline").textContent = about.guideline;
  $("guide").open = matchMedia("(min-width: 52.01rem)").matches;
  for (const { grade, meaning } of about.scale) {
    const term = make("dt", ""), explained = make("dd", "", meaning);
    term.append(make("kbd", "", grade));
    $("scale").append(term, explained);
  }
  $("ending").textContent = about.ending;
  $("rest").firstElementChild.textContent = `${about.scale[0].grade} for the rest`;
  outbox.open(`uar.${about.review}`);
  who = localStorage.getItem("uar.who") ?? "";
  if (who && sessionStorage.getItem("uar.began")) return begin();
  $("who").value = who;
  $("start").hidden = false;
  $("who").focus();
}

function begin() {
  $("start").hidden = true;
  $("tools").hidden = false;
  $("name").textContent = who;
  next();
}

async function next(skipped = false) {
  busy = true; // what is typed before the next question is there would go to this one
  await outbox.sent();
  let found;
  try { found = await post("/next", { who, skipped }); } catch (error) { return fault(error, () => next(skipped)); }
  if (!outbox.waiting) $("alert").hidden = true;
  show(found);
}

async function reopen(number) {
  busy = true;
  await outbox.sent();
  try { show(await post("/open", { who, item: number })); } catch (error) { fault(error, () => reopen(number)); }
}

function show(found) {
  progress(found.progress);
  busy = false;
  item = found.item === null ? null : found;
  $("work").hidden = item === null;
  $("end").hidden = item !== null;
  if (item === null) {
    $("again").hidden = !found.skipped;
    $("again").textContent = `go through the ${found.skipped} that you skipped`;
    setTimeout(() => { if (item === null && !$("end").hidden) next(); }, LOOK);
    return;
  }
  $("question").textContent = item.question;
  $("question").lang = item.language;
  $("answers").replaceChildren(...item.answers.map((answer) => make("li", "", answer)));
  $("passages").replaceChildren(...item.passages.map(passage));
  $("passages").className = about.mode === "passage" ? "one" : "";
  item.passages.forEach((_, place) => draw(place));
  move(Math.max(0, item.passages.findIndex((p) => !p.label)));
  window.scrollTo(0, 0);
  tick();
}

function make(kind, name, text = "") {
  const node = document.createElement(kind);
  node.className = name;
  node.textContent = text;
  return node;
}

function passage(of, place) {
  const node = make("article", "passage");
  node.tabIndex = -1;
  node.setAttribute("aria-label", `passage ${place + 1} of ${item.passages.length}`);
  const title = make("h3", "", of.title), text = make("p", "text"), grades = make("div", "grades");
  for (const part of [title, text]) { part.dir = "auto"; part.lang = item.language; }
  for (const { grade, meaning } of about.scale) {
    const button = make("button", "grade", grade);
    button.title = meaning;
    button.addEventListener("click", () => { move(place, false); give(grade); });
    grades.append(button);
  }
  const unsure = make("button", "unsure", "not sure"), here = make("button", "here", "answers it here");
  unsure.addEventListener("click", () => { move(place, false); doubt(); });
  here.addEventListener("click", () => { move(place, false); mark(); });
  grades.append(unsure, here);
  node.append(title, text);
  if (of.suggestion) node.append(make("p", "suggestion", suggested(of.suggestion)));
  node.append(grades);
  node.addEventListener("click", (event) => { if (!event.target.closest("button")) move(place, false); });
  return node;
}

function suggested({ label, grade }) {
  if (grade !== null) return `The LLM says: ${grade}, ${about.scale.find((one) => one.grade === grade)?.meaning ?? ""}`;
  return `The LLM says: ${label ? "it helps to answer" : "it does not help to answer"}`;
}

function draw(place) {
  const of = item.passages[place], node = $("passages").children[place], label = of.label;
  node.classList.toggle("graded", Boolean(label));
  for (const [number, button] of [...node.querySelectorAll(".grade")].entries()) {
    button.setAttribute("aria-pressed", String(label?.grade === about.scale[number].grade));
  }
  node.querySelector(".unsure").setAttribute("aria-pressed", String((label ?? of).confidence === 0));
  showMark(node.querySelector(".text"), of.text, label);
  $("done").disabled = item.passages.some((p) => !p.label);
}

function move(place, focus = true) {
  if (marking) stopMarking();
  at = Math.min(Math.max(place, 0), item.passages.length - 1);
  [...$("passages").children].forEach((node, number) => node.classList.toggle("at", number === at));
  if (focus) $("passages").children[at].focus({ preventScroll: true });
  $("passages").children[at].scrollIntoView({ block: "nearest" });
}

function tick() { // seconds for which the page was looked at since the last call
  const now = performance.now(), seconds = (clock.sum + (document.hidden ? 0 : now - clock.since)) / 1000;
  clock = { sum: 0, since: now };
  return seconds;
}

function spent(of) { return (of.label?.seconds ?? 0) + tick(); } // on a passage in all

function keep(place, label, remember) {
  const of = item.passages[place], before = of.label ?? null;
  remember?.push({ item: item.item, place, before });
  of.label = label;
  outbox.put(who, {
    kind: "label", item: item.item, place, grade: label?.grade ?? null, confidence: label?.confidence ?? null,
    start: label?.start ?? null, end: label?.end ?? null, seconds: label?.seconds ?? null, shown: Boolean(of.suggestion),
  });
  draw(place);
}

function give(grade) {
  const of = item.passages[at], step = [];
  keep(at, { ...of.label, grade, confidence: of.label?.confidence ?? of.confidence ?? 1, seconds: spent(of) }, step);
  history.push(step);
  onward();
}

function onward() {
  const { passages } = item, open = (p) => !p.label;
  const left = passages.filter(open).length;
  if (!left && about.mode === "passage") return done();
  if (!left) return say("All passages have a grade: Enter goes on.");
  const later = passages.findIndex((p, place) => place > at && open(p));
  move(later < 0 ? passages.findIndex(open) : later);
  say(`${left} of ${passages.length} passages have no grade yet.`);
}

function doubt() {
  const of = item.passages[at], step = [];
  if (!of.label) {
    of.confidence = of.confidence === 0 ? 1 : 0;
    draw(at);
    return;
  }
  keep(at, { ...of.label, confidence: of.label.confidence === 0 ? 1 : 0 }, step);
  history.push(step);
}

function rest() {
  const step = [], open = item.passages.filter((p) => !p.label), each = tick() / open.length;
  item.passages.forEach((p, place) => {
    if (!p.label) keep(place, { grade: about.scale[0].grade, confidence: p.confidence ?? 1, seconds: each }, step);
  });
  if (step.length) history.push(step);
  onward();
}

function turn(state) {
  if (busy || !item) return;
  outbox.put(who, { kind: "turn", item: item.item, state });
  history.push([{ item: item.item, turn: true }]);
  next();
}

function done() {
  const left = item.passages.filter((p) => !p.label).length;
  if (left) return say(`${left} of ${item.passages.length} passages have no grade yet; x gives them ${about.scale[0].grade}.`);
  say("");
  turn("done");
}

async function undo() {
  if (busy) return;
  const step = history.pop();
  if (!step) return say("There is nothing to undo.");
  if (step[0].item !== item?.item) await reopen(step[0].item);
  if (step[0].turn) {
    if (about.mode === "passage" && history.at(-1)?.[0].item === step[0].item && !history.at(-1)[0].turn) await undo();
    return;
  }
  for (const { place, before } of step) keep(place, before);
  move(step[0].place);
  say("Undone.");
}

function mark() {
  const node = $("passages").children[at], text = node.querySelector(".text"), of = item.passages[at];
  const chosen = markOf(text);
  if (chosen) return marked(chosen);
  marking = new Marking(text, of.text, of.label, (range) => { stopMarking(); if (range !== undefined) marked(range); });
  say("Mark the words: arrows move, Shift marks more, Enter keeps, Esc leaves, Delete removes.");
}

function marked(range) {
  const of = item.passages[at], step = [], best = about.scale.at(-1).grade;
  if (!range && !of.label) return;
  const place = { start: range?.start ?? null, end: range?.end ?? null };
  keep(at, { confidence: of.confidence ?? 1, grade: best, ...of.label, ...place, seconds: spent(of) }, step);
  history.push(step);
  getSelection().removeAllRanges();
  onward();
}

function stopMarking() {
  marking = null;
  say("");
  draw(at);
  $("passages").children[at].focus({ preventScroll: true });
}

function progress(of) {
  const agreed = of.agreement;
  const parts = [`${of.mine} of ${of.items} questions by you, ${of.done} in all`];
  if (of.people > 1) parts.push(`${of.people} people`);
  if (of.seconds !== null) parts.push(`${of.seconds.toFixed(1)} s a label`);
  if (agreed) {
    const alpha = agreed.alpha === null ? "" : ` (α ${agreed.alpha.toFixed(2)})`;
    parts.push(`agreement ${agreed.equal.toFixed(2)}${alpha} on ${agreed.passages} passages`);
  }
  $("progress").textContent = parts.join(" · ");
  $("bar").max = of.items;
  $("bar").value = of.mine;
}

const KEYS = {
  ArrowDown: () => move(at + 1), j: () => move(at + 1), ArrowUp: () => move(at - 1), k: () => move(at - 1),
  Enter: done, x: rest, u: doubt, m: mark, z: undo, s: () => turn("skipped"),
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, dialog")) return;
  if (marking) return marking.key(event);
  if (busy) return;
  const letter = event.key.length === 1 && event.key > "~" ? event.code.replace(/^Key/, "").toLowerCase() : event.key;
  const name = letter.length === 1 ? letter.toLowerCase() : letter;
  if (name === "?") return $("help").showModal();
  if (name === "g") { $("guide").open = !$("guide").open; return; }
  if (name === "z" && item === null && about) return void undo();
  if (item === null) return;
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1] ?? (/^\d$/.test(name) ? name : null);
  if (digit !== null && !event.shiftKey) {
    const known = about.scale.some(({ grade }) => grade === Number(digit));
    event.preventDefault();
    return known ? give(Number(digit)) : say(`There is no grade ${digit}.`);
  }
  if (name === "Enter" && event.target.closest("button, summary")) return;
  if (KEYS[name]) {
    event.preventDefault();
    KEYS[name]();
  }
});

document.addEventListener("visibilitychange", () => {
  const now = performance.now();
  if (document.hidden) clock.sum += now - clock.since;
  clock.since = now;
});
$("start").addEventListener("submit", (event) => {
  event.preventDefault();
  who = $("who").value.trim().replace(/\s+/g, " ");
  if (!who) return;
  localStorage.setItem("uar.who", who);
  sessionStorage.setItem("uar.began", "1");
  begin();
});
$("name").addEventListener("click", () => { sessionStorage.removeItem("uar.began"); location.reload(); });
$("help-button").addEventListener("click", () => $("help").showModal());
$("again").addEventListener("click", () => next(true));
for (const [id, act] of Object.entries({ done, rest, undo, skip: KEYS.s })) $(id).addEventListener("click", () => act());
start();
