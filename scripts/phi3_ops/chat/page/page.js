// The chat page. An answer is inserted into the document as text, or as the server's rendering of its
// Markdown, which contains no HTML of the model. Nothing is loaded from other hosts (see the page's policy).
"use strict";

const KEY = "phi3-chats"; // chats are stored only in this browser
const MAX_CHATS = 100;
const RENDER_EVERY_MS = 150;
const byId = (id) => document.getElementById(id);
// `outdated`: another tab has saved its chats; `changed`: it has changed the open chat, which is not drawn again yet.
const page = { info: null, chats: [], chat: null, running: null, leaving: false, early: false, outdated: false, changed: false };

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

// Takes what another tab has saved. The open chat keeps its objects, because the buttons on the page refer to them.
// `keepsChat`: the open chat stays, even if the other tab has deleted it or did not know it.
function loadAgain(keepsChat = false) {
  page.outdated = Boolean(page.running);
  if (page.outdated) return; // `ask` calls it again
  const current = page.chat;
  const before = JSON.stringify(current);
  load();
  if (current && page.chat) {
    adopt(current.turns, page.chat.turns);
    page.chats[page.chats.indexOf(page.chat)] = current;
    page.chat = current;
  } else if (current && keepsChat) {
    page.chats.unshift(current);
    page.chat = current;
  }
  page.changed ||= JSON.stringify(page.chat) !== before;
  drawChats();
  drawChanges();
}

function adopt(turns, stored) {
  for (const [n, turn] of stored.entries()) {
    if (n === turns.length) { turns.push(turn); continue; }
    turns[n].better = turn.better ?? turns[n].better;
    for (const [k, answer] of turns[n].answers.entries()) {
      const copy = turn.answers[k];
      if (!answer.ms) Object.assign(answer, { stopped: false }, copy); // the other tab's, complete only now
      else if (copy?.feedback) change(answer, copy.feedback);
    }
  }
}

// Draws the open chat again if another tab has changed it, but not while the user writes or sends something.
function drawChanges() {
  if (!page.changed || page.running || isGivingFeedback()) return;
  page.changed = false;
  drawLog();
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
  offerChoice(page.chat, turn, drawn.map((item) => item.bar()));
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
  const { render, renderSome } = rendererInto(body);
  const chat = page.chat;
  let bar = null; // the buttons for feedback, if the server stores it

  function finish() {
    body.classList.remove("waiting");
    element.removeAttribute("aria-busy");
    if (answer.error) body.after(make("p", { class: "error", role: "alert" }, answer.error));
    foot.replaceChildren(make("span", {}, detailsOf(answer)));
    if (answer.text) {
      foot.prepend(make("button", { type: "button", class: "quiet", onclick: (event) => copy(event.target, currentText(answer)) }, "Copy"));
    }
    if (takesFeedback(answer)) {
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

function detailsOf(answer) {
  const details = [];
  if (answer.tokens) details.push(`tokens: ${answer.tokens.prompt_tokens} in, ${answer.tokens.completion_tokens} out`);
  if (answer.ms) details.push(duration(answer.ms));
  if (answer.firstMs) details.push(`first token after ${duration(answer.firstMs)}`);
  if (answer.stopped) details.push("stopped");
  if (answer.leftOut) details.push(`older turns left out: the model reads ${answer.window} tokens`);
  return details.join(" · ");
}

// Renders Markdown into an element.
function rendererInto(body) {
  let newest = 0; // number of the newest rendering that was requested
  let rendering = 0;
  let lastRendered = 0;

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

  return { render, renderSome };
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
    if (event.key === KEY) loadAgain();
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
  const label = all.length > 1 ? "connections" : "connection";
  byId("about").textContent = `flow ${flow}${version ? ` ${version}` : ""} · ${label} ${names}`;
  if (all.length > 1) {
    byId("both").hidden = false;
    byId("compare").checked = true;
    byId("side").replaceChildren(...all.map((side, n) => make("option", { value: n }, side.connection)));
  }
  if (page.early) byId("ask").requestSubmit();
}

start();
