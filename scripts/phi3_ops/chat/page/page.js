// The chat page. An answer is inserted into the document as text, or as the server's rendering of its
// Markdown, which contains no HTML of the model. Nothing is loaded from other hosts (see the page's policy).
"use strict";

const KEY = "phi3-chats"; // chats are stored only in this browser
const MAX_CHATS = 100;
const RENDER_EVERY_MS = 150;
// The tool's text for an error after the answer has started, when the status cannot change any more.
const BROKE_OFF = /^\s*\[The answer broke off: (.*)\]$/s;
// The errors of the endpoint and of the client for a conversation that is too long.
const TOO_LONG = /context window (?:of|has) (\d+)/;
const EMPTY_ANSWER = "The model ended its answer before the first word. A small model does this if a question is "
  + "unlike its training data. Ask in other words, or start a new chat.";
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
    const stored = JSON.parse(localStorage.getItem(KEY) || "[]");
    page.chats = Array.isArray(stored) ? stored.filter((chat) => Array.isArray(chat.turns)) : [];
  } catch {
    page.chats = [];
  }
  // An answer without a duration was not complete when the page was left.
  for (const answer of page.chats.flatMap((chat) => chat.turns).flatMap((turn) => turn.answers)) {
    if (!answer.ms) answer.stopped = true;
  }
  const current = sessionStorage.getItem(KEY);
  page.chat = page.chats.find((chat) => chat.id === current) || null;
}

function persist() {
  page.chats = page.chats.slice(0, MAX_CHATS);
  try {
    localStorage.setItem(KEY, JSON.stringify(page.chats));
    sessionStorage.setItem(KEY, page.chat ? page.chat.id : "");
  } catch {
    announce("This browser cannot store more chats. Delete some chats.");
  }
}

function open(chat) {
  stop();
  page.chat = chat;
  persist();
  drawChats();
  drawLog();
  byId("history").classList.remove("visible");
  byId("menu").setAttribute("aria-expanded", "false");
  byId("question").focus();
}

function remove(chat) {
  page.chats = page.chats.filter((other) => other !== chat);
  if (page.chat === chat) open(null);
  else { persist(); drawChats(); }
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

// -- questions and answers ------------------------------------------------------------------------

function drawLog() {
  const log = byId("log");
  const turns = page.chat ? page.chat.turns : [];
  log.replaceChildren(...turns.flatMap(drawTurn));
  if (!turns.length) log.append(drawEmpty());
  log.scrollTop = log.scrollHeight;
}

// What is shown before the first question: which models answer, and questions to click.
function drawEmpty() {
  const empty = make("div", { class: "empty" }, make("p", {}, "Ask your model a question."));
  if (!page.info) return empty;
  const names = page.info.sides.map((side) => `${side.connection}${side.caption ? ` (${side.caption})` : ""}`);
  const who = names.length > 1
    ? `Two models answer side by side: ${names.join(" and ")}.`
    : `The model of ${names[0]} answers.`;
  const where = page.info.feedback ? "this browser, and your feedback on the server" : "this browser only";
  empty.append(make("p", { class: "dim" }, `${who} An answer takes the earlier turns of the chat into account. Your chats are stored in ${where}.`));
  const suggest = (question) => make("button", { type: "button", onclick: () => { if (!page.running) ask(question); } }, question);
  if (page.info.questions.length) {
    empty.append(make("div", { class: "suggested", role: "group", "aria-label": "Questions to begin with" }, ...page.info.questions.map(suggest)));
  }
  return empty;
}

function captionOf(connection) {
  return page.info?.sides.find((side) => side.connection === connection)?.caption || "";
}

function drawTurn(turn) {
  const drawn = turn.answers.map((answer) => drawAnswer(turn, answer));
  for (const item of drawn) item.finish();
  offerChoice(turn, drawn.map((item) => item.bar()));
  const answers = make("div", { class: "answers" }, ...drawn.map((item) => item.element));
  return [make("div", { class: "question" }, turn.question), answers];
}

function drawAnswer(turn, answer) {
  const body = make("div", { class: "text plain" });
  const foot = make("div", { class: "foot" });
  const caption = captionOf(answer.connection);
  const from = make("p", { class: "from" }, answer.connection);
  if (caption) from.append(" ", make("span", { class: "caption" }, caption));
  const element = make("section", { class: "answer", "aria-label": `Answer from ${answer.connection}` }, from, body, foot);
  let newest = 0; // number of the newest rendering that was requested
  let rendering = 0;
  let lastRendered = 0;
  const chat = page.chat;
  let bar = null; // the buttons for feedback, if the server stores it

  // While an answer arrives, only one rendering is requested at a time. The next one has the newer text.
  async function renderSome(text) {
    if (rendering || performance.now() - lastRendered < RENDER_EVERY_MS) return;
    await render(text);
    lastRendered = performance.now();
  }

  async function render(text) {
    const number = ++newest;
    if (!text) { body.textContent = ""; return; }
    rendering += 1;
    try {
      const response = await fetch("markdown", { method: "POST", body: text });
      const { html } = await response.json();
      if (number !== newest) return; // a newer rendering was requested
      if (html === null) throw new Error("the answer is too long to be rendered");
      const parsed = new DOMParser().parseFromString(html, "text/html");
      for (const link of parsed.querySelectorAll("a")) {
        link.target = "_blank";
        link.rel = "noopener noreferrer nofollow";
      }
      body.classList.remove("plain");
      body.replaceChildren(...parsed.body.childNodes);
    } catch {
      body.classList.add("plain");
      body.textContent = text;
    } finally {
      rendering -= 1;
    }
  }

  function finish() {
    body.classList.remove("waiting");
    element.removeAttribute("aria-busy");
    if (answer.error) body.after(make("p", { class: "error", role: "alert" }, answer.error));
    const details = [];
    if (answer.tokens) details.push(`tokens: ${answer.tokens.prompt_tokens} in, ${answer.tokens.completion_tokens} out`);
    if (answer.ms) details.push(duration(answer.ms));
    if (answer.firstMs) details.push(`first token after ${duration(answer.firstMs)}`);
    if (answer.stopped) details.push("stopped");
    if (answer.leftOut) details.push(`older turns left out: the model reads ${answer.window} tokens`);
    foot.replaceChildren(make("span", {}, details.join(" · ")));
    if (answer.text) {
      foot.prepend(make("button", { type: "button", class: "quiet", onclick: (event) => copy(event.target, currentText(answer)) }, "Copy"));
    }
    if (page.info?.feedback && answer.text && !answer.error) {
      bar = feedbackBar(chat, turn, answer, body, show);
      foot.after(bar.element);
    }
    return show(currentText(answer));
  }

  function show(text) {
    element.querySelector(".corrected")?.remove();
    if (text !== answer.text) body.after(make("p", { class: "corrected" }, "corrected by you"));
    return render(text);
  }

  function wait() {
    body.classList.add("waiting");
    element.setAttribute("aria-busy", "true");
  }

  return { element, renderSome, finish, wait, bar: () => bar };
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    announce("Copied");
  } catch {
    button.textContent = "Copying is not allowed";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

// -- asking -----------------------------------------------------------------------------------------

function sides() {
  const all = page.info ? page.info.sides : [];
  if (all.length < 2 || byId("compare").checked) return all;
  return [all[Number(byId("side").value)]];
}

// Each connection gets its own earlier answers. If it has none for a question, it gets the other's.
function earlierTurns(turns, connection) {
  return turns.flatMap((turn) => {
    const complete = turn.answers.filter((answer) => answer.text && !answer.error);
    const answer = complete.find((each) => each.connection === connection) || complete[0];
    return answer ? [{ inputs: { question: turn.question }, outputs: { answer: currentText(answer) } }] : [];
  });
}

async function ask(question) {
  if (!page.chat) {
    page.chat = { id: newId(), turns: [] };
    page.chats.unshift(page.chat);
    byId("log").replaceChildren();
  }
  const chat = page.chat;
  const turn = { question, answers: sides().map((side) => ({ connection: side.connection, text: "" })) };
  chat.turns.push(turn);
  const log = byId("log");
  const answers = make("div", { class: "answers" });
  log.append(make("div", { class: "question" }, question), answers);
  const drawn = turn.answers.map((answer) => drawAnswer(turn, answer));
  for (const item of drawn) { item.wait(); answers.append(item.element); }
  log.scrollTop = log.scrollHeight;
  drawChats();
  persist();

  const running = new AbortController();
  page.running = running;
  busy(true);
  await Promise.all(sides().map((side, n) => answerFrom(side, question, turn.answers[n], drawn[n], running.signal)));
  offerChoice(turn, drawn.map((item) => item.bar()));
  persist();
  if (page.running === running) { page.running = null; busy(false); }
  announce(turn.answers.some((answer) => answer.error) ? "The endpoint answered with an error." : "The answer is complete.");
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
  const turns = earlierTurns(page.chat.turns.slice(0, -1), side.connection).slice(leftOutBefore(side.connection));
  while (await request(side, question, turns, answer, add, signal)) {
    const leaving = Math.ceil(turns.length / 2);
    answer.leftOut = (answer.leftOut ?? leftOutBefore(side.connection)) + leaving;
    turns.splice(0, leaving);
  }
  answer.ms = performance.now() - started;
  if (!answer.text && !answer.error && !answer.stopped) answer.error = EMPTY_ANSWER;
  const follow = atEnd(log);
  await drawn.finish();
  if (follow) log.scrollTop = log.scrollHeight;
}

// Number of turns that were too long for the model at the last question, which are not tried again.
function leftOutBefore(connection) {
  const answers = page.chat.turns.at(-2)?.answers || [];
  return answers.find((answer) => answer.connection === connection)?.leftOut || 0;
}

// Sends the question. Returns whether it should be sent again with fewer of the earlier turns.
async function request(side, question, turns, answer, add, signal) {
  try {
    const response = await fetch(`${side.path}score`, {
      method: "POST",
      signal,
      headers: { "content-type": "application/json", accept: "text/event-stream, application/json", "x-phi3-usage": "1" },
      body: JSON.stringify({ question, chat_history: turns }),
    });
    if (!response.ok) answer.error = await errorOf(response);
    else if ((response.headers.get("content-type") || "").startsWith("text/event-stream")) await read(response, answer, add);
    else add(textOf(await response.json()));
  } catch (error) {
    if (error.name === "AbortError" || page.leaving) answer.stopped = true;
    else answer.error = "The server cannot be reached. Is `phi3 serve` still running?";
  }
  const tooLong = !answer.text && answer.error?.match(TOO_LONG);
  if (!tooLong) return false;
  answer.window = Number(tooLong[1]);
  const what = page.chat.turns.length > 1 ? "conversation" : "question";
  const fix = page.chat.turns.length > 1 ? "Start a new chat." : "Ask a shorter question.";
  answer.error = `The ${what} is longer than this model's ${answer.window} tokens. ${fix}`;
  if (!turns.length) return false;
  delete answer.error;
  return true;
}

// Server-sent events are blocks of lines with an empty line between them.
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

function busy(isBusy) {
  byId("send").hidden = isBusy;
  byId("stop").hidden = !isBusy;
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
    if (page.early) return; // `start` sends it when the connections are known
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
  // The browser may cancel requests before `pagehide`. That is not an error of the server.
  window.addEventListener("beforeunload", () => { page.leaving = true; });
  window.addEventListener("pageshow", () => { page.leaving = false; });
  window.addEventListener("pagehide", persist);
  window.addEventListener("storage", (event) => { // another tab has saved its chats
    if (event.key === KEY && !page.running) { load(); drawChats(); }
  });
  byId("stop").addEventListener("click", stop);
  byId("new").addEventListener("click", () => open(null));
  byId("close").addEventListener("click", () => toggle(false));
  byId("menu").addEventListener("click", () => toggle(!byId("history").classList.contains("visible")));
  byId("compare").addEventListener("change", () => { byId("one").hidden = byId("compare").checked; });
}

function toggle(visible) {
  byId("history").classList.toggle("visible", visible);
  byId("menu").setAttribute("aria-expanded", String(visible));
  (visible ? byId("new") : byId("menu")).focus();
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
  if (page.info.feedback) showFeedbackNotice();
  drawLog(); // now with the captions and the suggested questions
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
