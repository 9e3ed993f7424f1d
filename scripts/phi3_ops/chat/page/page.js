// The chat page. What a model says reaches the document as text, or as the server's own rendering of it,
// which holds no HTML of the model's; nothing is loaded from anywhere else (see the page's policy).
"use strict";

const KEY = "phi3-chats"; // chats are kept in this browser alone
const MOST_CHATS = 100;
const RENDER_EVERY_MS = 150;
// How the tool tells of an error once the answer has begun, when no status can.
const BROKE_OFF = /^\s*\[The answer broke off: (.*)\]$/s;
const byId = (id) => document.getElementById(id);
const page = { info: null, chats: [], chat: null, running: null, leaving: false, early: false };

// -- small helpers ----------------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function announce(text) {
  byId("status").textContent = text;
}

function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function atEnd(log) {
  return log.scrollHeight - log.scrollTop - log.clientHeight < 80;
}

// -- chats ------------------------------------------------------------------------------------------

function load() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) || "[]");
    page.chats = Array.isArray(found) ? found.filter((chat) => Array.isArray(chat.turns)) : [];
  } catch {
    page.chats = [];
  }
  // What was still on its way when the page was left has no end.
  for (const answer of page.chats.flatMap((chat) => chat.turns).flatMap((turn) => turn.answers)) {
    if (!answer.ms) answer.stopped = true;
  }
  const current = sessionStorage.getItem(KEY);
  page.chat = page.chats.find((chat) => chat.id === current) || null;
}

function save() {
  page.chats = page.chats.slice(0, MOST_CHATS);
  try {
    localStorage.setItem(KEY, JSON.stringify(page.chats));
    sessionStorage.setItem(KEY, page.chat ? page.chat.id : "");
  } catch {
    announce("This browser keeps no more chats: delete some.");
  }
}

function open(chat) {
  stop();
  page.chat = chat;
  save();
  drawChats();
  drawLog();
  byId("history").classList.remove("shown");
  byId("menu").setAttribute("aria-expanded", "false");
  byId("question").focus();
}

function remove(chat) {
  page.chats = page.chats.filter((other) => other !== chat);
  if (page.chat === chat) open(null);
  else { save(); drawChats(); }
}

function drawChats() {
  byId("chats").replaceChildren(...page.chats.map((chat) => {
    const title = chat.turns[0]?.question.slice(0, 60) || "Chat";
    const button = make("button", { type: "button", class: "open", title, onclick: () => open(chat) }, title);
    if (chat === page.chat) button.setAttribute("aria-current", "true");
    const trash = make("button",
      { type: "button", class: "quiet", "aria-label": `Delete the chat: ${title}`, onclick: () => remove(chat) }, "×");
    return make("li", {}, button, trash);
  }));
}

// -- what was said ----------------------------------------------------------------------------------

function drawLog() {
  const log = byId("log");
  const turns = page.chat ? page.chat.turns : [];
  log.replaceChildren(...turns.flatMap(drawTurn));
  if (!turns.length) log.append(make("p", { class: "empty" }, "Ask your model something."));
  log.scrollTop = log.scrollHeight;
}

function drawTurn(turn) {
  const answers = make("div", { class: "answers" });
  for (const answer of turn.answers) {
    const drawn = drawAnswer(answer);
    answers.append(drawn.element);
    drawn.finish();
  }
  return [make("div", { class: "question" }, turn.question), answers];
}

function drawAnswer(answer) {
  const said = make("div", { class: "said plain" });
  const foot = make("div", { class: "foot" });
  const element = make("section", { class: "answer", "aria-label": `Answer of ${answer.connection}` },
    make("p", { class: "from" }, answer.connection), said, foot);
  let wanted = 0;
  let rendering = 0;
  let last = 0;

  // While an answer comes, one rendering at a time: the next one has all that came meanwhile.
  async function renderSome(text) {
    if (rendering || performance.now() - last < RENDER_EVERY_MS) return;
    await render(text);
    last = performance.now();
  }

  async function render(text) {
    const turn = ++wanted;
    if (!text) { said.textContent = ""; return; }
    rendering += 1;
    try {
      const response = await fetch("markdown", { method: "POST", body: text });
      const { html } = await response.json();
      if (turn !== wanted) return; // a later one was faster
      const parsed = new DOMParser().parseFromString(html, "text/html");
      for (const link of parsed.querySelectorAll("a")) {
        link.target = "_blank";
        link.rel = "noopener noreferrer nofollow";
      }
      said.classList.remove("plain");
      said.replaceChildren(...parsed.body.childNodes);
    } catch {
      said.classList.add("plain");
      said.textContent = text;
    } finally {
      rendering -= 1;
    }
  }

  function finish() {
    said.classList.remove("waiting");
    element.removeAttribute("aria-busy");
    if (answer.error) said.after(make("p", { class: "error", role: "alert" }, answer.error));
    const figures = [];
    if (answer.tokens) figures.push(`tokens: ${answer.tokens.prompt_tokens} in, ${answer.tokens.completion_tokens} out`);
    if (answer.ms) figures.push(duration(answer.ms));
    if (answer.firstMs) figures.push(`first after ${duration(answer.firstMs)}`);
    if (answer.stopped) figures.push("stopped");
    foot.replaceChildren(make("span", {}, figures.join(" · ")));
    if (answer.text) {
      foot.prepend(make("button", { type: "button", class: "quiet", onclick: (event) => copy(event.target, answer.text) }, "Copy"));
    }
    return render(answer.text);
  }

  function wait() {
    said.classList.add("waiting");
    element.setAttribute("aria-busy", "true");
  }

  return { element, renderSome, finish, wait };
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    announce("Copied");
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

// -- asking -----------------------------------------------------------------------------------------

function sides() {
  const all = page.info ? page.info.sides : [];
  if (all.length < 2 || byId("compare").checked) return all;
  return [all[Number(byId("side").value)]];
}

// Each connection goes on from its own answers; where it has none, from what the other one said.
function history(connection) {
  return page.chat.turns.slice(0, -1).flatMap((turn) => {
    const good = turn.answers.filter((answer) => answer.text && !answer.error);
    const answer = good.find((one) => one.connection === connection) || good[0];
    return answer ? [{ inputs: { question: turn.question }, outputs: { answer: answer.text } }] : [];
  });
}

async function ask(question) {
  if (!page.chat) {
    page.chat = { id: crypto.randomUUID ? crypto.randomUUID() : String(Math.random()), turns: [] };
    page.chats.unshift(page.chat);
    byId("log").replaceChildren();
  }
  const chat = page.chat;
  const turn = { question, answers: sides().map((side) => ({ connection: side.connection, text: "" })) };
  chat.turns.push(turn);
  const log = byId("log");
  const answers = make("div", { class: "answers" });
  log.append(make("div", { class: "question" }, question), answers);
  const drawn = turn.answers.map(drawAnswer);
  for (const one of drawn) { one.wait(); answers.append(one.element); }
  log.scrollTop = log.scrollHeight;
  drawChats();
  save();

  const running = new AbortController();
  page.running = running;
  busy(true);
  await Promise.all(sides().map((side, n) => answerFrom(side, question, turn.answers[n], drawn[n], running.signal)));
  save();
  if (page.running === running) { page.running = null; busy(false); }
  announce(turn.answers.some((one) => one.error) ? "The endpoint answered with an error." : "The answer is complete.");
}

async function answerFrom(side, question, answer, drawn, signal) {
  const started = performance.now();
  const log = byId("log");
  const add = (piece) => {
    if (!answer.firstMs) answer.firstMs = performance.now() - started;
    const broken = piece.match(BROKE_OFF);
    if (broken) { answer.error = `The answer broke off: ${broken[1]}`; return; }
    answer.text += piece;
    const follow = atEnd(log);
    drawn.renderSome(answer.text).then(() => { if (follow) log.scrollTop = log.scrollHeight; });
  };
  try {
    const response = await fetch(`${side.path}score`, {
      method: "POST",
      signal,
      headers: { "content-type": "application/json", accept: "text/event-stream, application/json", "x-phi3-usage": "1" },
      body: JSON.stringify({ question, chat_history: history(side.connection) }),
    });
    if (!response.ok) answer.error = await errorOf(response);
    else if ((response.headers.get("content-type") || "").startsWith("text/event-stream")) await read(response, answer, add);
    else add(textOf(await response.json()));
  } catch (error) {
    if (error.name === "AbortError" || page.leaving) answer.stopped = true;
    else answer.error = "The server cannot be reached. Is `phi3 serve` still running?";
  }
  answer.ms = performance.now() - started;
  if (!answer.text && !answer.error && !answer.stopped) answer.error = "The answer is empty.";
  const follow = atEnd(log);
  await drawn.finish();
  if (follow) log.scrollTop = log.scrollHeight;
}

// Server-sent events: blocks of lines, an empty line between them.
async function read(response, answer, add) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const events = (rest + value).split(/\r?\n\r?\n/);
    rest = events.pop();
    for (const event of events) take(event, answer, add);
  }
}

function take(event, answer, add) {
  const lines = event.split(/\r?\n/);
  const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
  if (!data || data === "[DONE]") return;
  let parsed;
  try { parsed = JSON.parse(data); } catch { return; }
  if (lines.some((line) => line.trim() === "event: usage")) answer.tokens = parsed;
  else if (parsed.error) answer.error = parsed.error.message || String(parsed.error);
  else add(textOf(parsed));
}

function textOf(outputs) {
  const value = outputs.answer ?? Object.values(outputs)[0] ?? "";
  return typeof value === "string" ? value : JSON.stringify(value);
}

async function errorOf(response) {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text);
    return error.message || text;
  } catch {
    return `${response.status} ${response.statusText}: ${text.slice(0, 500)}`;
  }
}

function stop() {
  if (page.running) page.running.abort();
  page.running = null;
  busy(false);
}

function busy(is) {
  byId("send").hidden = is;
  byId("stop").hidden = !is;
}

// -- the page ---------------------------------------------------------------------------------------

function fit() {
  const box = byId("question");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

function wire() {
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const question = byId("question").value.trim();
    if (!question || page.running) return;
    page.early = !page.info;
    if (page.early) return; // asked as soon as it is known whom to ask
    byId("question").value = "";
    fit();
    ask(question);
  });
  byId("question").addEventListener("input", fit);
  byId("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      byId("ask").requestSubmit();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && page.running) stop();
  });
  // The browser may break what is under way before `pagehide`: that is no fault of the server.
  window.addEventListener("beforeunload", () => { page.leaving = true; });
  window.addEventListener("pageshow", () => { page.leaving = false; });
  window.addEventListener("pagehide", save);
  window.addEventListener("storage", (event) => { // another tab has saved
    if (event.key === KEY && !page.running) { load(); drawChats(); }
  });
  byId("stop").addEventListener("click", stop);
  byId("new").addEventListener("click", () => open(null));
  byId("close").addEventListener("click", () => toggle(false));
  byId("menu").addEventListener("click", () => toggle(!byId("history").classList.contains("shown")));
  byId("compare").addEventListener("change", () => { byId("one").hidden = byId("compare").checked; });
}

function toggle(shown) {
  byId("history").classList.toggle("shown", shown);
  byId("menu").setAttribute("aria-expanded", String(shown));
  (shown ? byId("new") : byId("menu")).focus();
}

async function start() {
  load();
  wire();
  drawChats();
  drawLog();
  byId("question").focus();
  try {
    page.info = await (await fetch("page.json")).json();
  } catch {
    byId("about").textContent = "The server cannot be reached.";
    return;
  }
  const { flow, version, sides: all } = page.info;
  const names = all.map((side) => side.connection).join(" and ");
  byId("about").textContent = `flow ${flow}${version ? ` ${version}` : ""} · connection ${names}`;
  if (all.length > 1) {
    byId("both").hidden = false;
    byId("compare").checked = true;
    byId("side").replaceChildren(...all.map((side, n) => make("option", { value: n }, side.connection)));
  }
  if (page.early) byId("ask").requestSubmit();
}

start();
