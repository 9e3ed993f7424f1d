// The page of a review. All texts are inserted as text. The names of the runs come only with the summary.
"use strict";

const byId = (id) => document.getElementById(id);
const page = { info: null, line: null, selected: 0, editing: false, draft: "", scores: false, ended: false };
const TIE = "tie";

// -- small helpers ----------------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function announce(text) {
  byId("status").textContent = text;
}

function fail(text) {
  byId("error").textContent = text;
  byId("error").hidden = !text;
}

// Returns the answer of the server, or null after showing an error.
async function call(path, body) {
  const request = body === undefined ? {} : {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  };
  try {
    const response = await fetch(path, request);
    const content = await response.json();
    if (!response.ok) throw new Error(content.error.message);
    fail("");
    return content;
  } catch (error) {
    const reason = error instanceof TypeError ? "`phi3 review` does not answer; start it again" : error.message;
    fail(body === undefined ? `The line was not loaded: ${reason}` : `Not saved: ${reason}`);
    return null;
  }
}

const letter = (index) => String.fromCharCode(65 + index);

// -- the line ---------------------------------------------------------------------------------------

async function open(position) {
  if (page.ended || page.editing || position < 0 || position >= page.info.lines) return;
  const line = await call(`lines/${position}${page.scores ? "?scores=1" : ""}`);
  if (!line) return;
  const moved = !page.line || page.line.position !== position;
  page.line = line;
  if (moved) {
    page.selected = Math.max(0, line.answers.findIndex((answer) => answer.text !== null));
    byId("line").focus({ preventScroll: true });
    window.scrollTo(0, 0);
    announce(`Line ${position + 1} of ${page.info.lines}`);
  }
  show();
}

function show() {
  const line = page.line;
  byId("number").textContent = `Line ${line.position + 1} of ${page.info.lines} (line ${line.number} of the data)`;
  for (const name of ["history", "question", "context", "reference"]) {
    byId(name).textContent = line[name] ?? "";
    if (name !== "question") byId(`${name}-part`).hidden = line[name] === null;
  }
  byId("answers").replaceChildren(...line.answers.map(answerPart));
  showChoices();
  byId("previous").disabled = line.position === 0;
  byId("next").disabled = line.position === page.info.lines - 1;
  showProgress();
}

function showProgress() {
  const { judged, lines } = page.info;
  byId("progress").textContent = `${judged} of ${lines} judged`;
  byId("bar").max = lines;
  byId("bar").value = judged;
}

function answerPart(answer, index) {
  const part = make("article", {
    class: index === page.selected ? "answer selected" : "answer", "aria-label": `Answer ${letter(index)}`,
    onclick: () => select(index),
  }, make("h3", {}, `Answer ${letter(index)}`));
  if (answer.text === null) {
    part.append(make("p", { class: "dim" }, "This line failed and has no answer."));
    return part;
  }
  part.append(make("div", { class: "text" }, answer.text));
  if (page.editing && index === page.selected) part.append(editor(index));
  else {
    if (answer.edited !== null) {
      part.append(make("div", { class: "edited" }, make("h3", {}, "Your correction"), make("div", { class: "text" }, answer.edited)));
    }
    part.append(tools(answer, index));
  }
  part.append(...scoreList(answer));
  return part;
}

function tools(answer, index) {
  const ratings = [1, 2, 3, 4, 5].map((value) => make("button", {
    type: "button", "aria-pressed": String(answer.rating === value), "aria-label": `Rate answer ${letter(index)} ${value}`,
    onclick: () => rate(index, value),
  }, String(value)));
  return make("div", { class: "tools", role: "group", "aria-label": `Judge answer ${letter(index)}` }, ...ratings,
    make("button", { type: "button", onclick: () => edit(index) }, "Edit (e)"),
    make("button", { type: "button", "aria-pressed": String(answer.flagged), onclick: () => flag(index) }, "Flag (f)"));
}

function scoreList(answer) {
  const scores = Object.entries(answer.scores ?? {});
  if (!scores.length) return [];
  const items = scores.map(([name, value]) => {
    const reason = answer.reasons[name];
    return make("li", {}, `${name} ${Number(value.toFixed(3))}${reason ? ` – ${reason}` : ""}`);
  });
  return [make("ul", { class: "scores", "aria-label": "Scores" }, ...items)];
}

function editor(index) {
  const area = make("textarea", {
    "aria-label": `Corrected answer ${letter(index)}`, maxlength: "100000", oninput: () => { page.draft = area.value; },
    onkeydown: (event) => {
      if (event.key === "Escape") cancelEdit();
      else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) saveEdit();
      else return;
      event.preventDefault();
      event.stopPropagation();
    },
  });
  area.value = page.draft;
  return make("div", {}, area, make("div", { class: "tools" },
    make("button", { type: "button", onclick: saveEdit }, "Save (Ctrl+Enter)"),
    make("button", { type: "button", onclick: cancelEdit }, "Cancel (Escape)")));
}

function showChoices() {
  const { answers, choice } = page.line;
  const answered = answers.map((answer, index) => [answer, index]).filter(([answer]) => answer.text !== null);
  byId("choices").hidden = answered.length < 2;
  const button = (value, text) => make("button", {
    type: "button", "aria-pressed": String(choice === value), onclick: () => choose(value),
  }, text);
  byId("choices").replaceChildren(
    ...answered.map(([, index]) => button(index, `${letter(index)} is ${answers.length > 2 ? "the best" : "better"}`)),
    button(TIE, "Equally good (=)"));
}

function showRubric(rubric) {
  const levels = rubric.levels.map((text) => make("li", {}, text));
  byId("rubric").replaceChildren(make("strong", {}, `${rubric.name}: `), rubric.question, make("ol", {}, ...levels));
}

// -- judging ----------------------------------------------------------------------------------------

async function judge(kind, answer, value, words) {
  const position = page.line.position;
  const line = await call(`lines/${position}`, { kind, answer, value });
  if (!line) return false;
  Object.assign(page.info, { judged: line.progress.judged });
  if (page.line.position === position) {
    page.line = line;
    if (kind === "edit") page.editing = false;
    const focused = document.activeElement?.getAttribute("aria-label") || document.activeElement?.textContent;
    show();
    restoreFocus(focused);
  }
  announce(`${words}, saved`);
  return true;
}

// The buttons were made again: the one that had the focus gets it back.
function restoreFocus(label) {
  const buttons = [...document.querySelectorAll("#answers button, #choices button")];
  const button = buttons.find((each) => (each.getAttribute("aria-label") || each.textContent) === label);
  (button ?? byId("line")).focus({ preventScroll: true });
}

function isAnswered(index) {
  return index >= 0 && index < page.line.answers.length && page.line.answers[index].text !== null;
}

function rate(index, value) {
  if (!isAnswered(index)) return;
  page.selected = index;
  const withdrawn = page.line.answers[index].rating === value;
  judge("rating", index, withdrawn ? null : value, withdrawn ? "Rating withdrawn" : `Answer ${letter(index)} rated ${value}`);
}

function choose(value) {
  const answered = page.line.answers.filter((answer) => answer.text !== null);
  if (answered.length < 2 || (value !== TIE && !isAnswered(value))) return;
  const withdrawn = page.line.choice === value;
  const words = value === TIE ? "Equally good" : `Answer ${letter(value)} is better`;
  judge("choice", undefined, withdrawn ? null : value, withdrawn ? "Choice withdrawn" : words);
}

function flag(index) {
  if (!isAnswered(index)) return;
  page.selected = index;
  const flagged = !page.line.answers[index].flagged;
  judge("flag", index, flagged, flagged ? `Answer ${letter(index)} flagged` : "Flag withdrawn");
}

function edit(index) {
  if (!isAnswered(index)) return;
  page.selected = index;
  page.editing = true;
  page.draft = page.line.answers[index].edited ?? page.line.answers[index].text;
  show();
  document.querySelector("#answers textarea").focus();
}

// The text stays in the editor if it could not be saved.
function saveEdit() {
  judge("edit", page.selected, page.draft, "Correction");
}

function cancelEdit() {
  page.editing = false;
  show();
  byId("line").focus({ preventScroll: true });
}

function select(index) {
  if (page.editing || index === page.selected || !page.line.answers[index]) return;
  page.selected = index;
  document.querySelectorAll("#answers .answer").forEach((part, number) => part.classList.toggle("selected", number === index));
  announce(`Answer ${letter(index)} selected`);
}

function move(step) {
  if (!page.editing) open(page.line.position + step);
}

function toggleScores() {
  page.scores = !page.scores;
  byId("scores").checked = page.scores;
  open(page.line.position);
}

function toggleHelp() {
  const keys = byId("keys");
  keys.hidden = !keys.hidden;
  byId("help").setAttribute("aria-expanded", String(!keys.hidden));
}

// -- the end ----------------------------------------------------------------------------------------

function end() {
  const open = page.info.lines - page.info.judged;
  const question = `The names of the runs are shown, and nothing can be judged any more. ${open} lines are not judged. End the review?`;
  if (window.confirm(question)) loadSummary();
}

async function loadSummary() {
  const summary = await call("end", {});
  if (summary) showSummary(summary);
}

function showSummary(summary) {
  page.ended = true;
  byId("line").hidden = true;
  byId("keys").hidden = true;
  for (const id of ["end", "help"]) byId(id).hidden = true;
  byId("scores").parentElement.hidden = true;
  const parts = summary.sections.flatMap(({ title, lines, tables }) => [
    make("h2", {}, title), ...lines.map((text) => make("p", {}, text)), ...tables.map(tablePart),
  ]);
  byId("summary").replaceChildren(...parts);
  byId("summary").hidden = false;
  byId("summary").focus();
}

function tablePart({ caption, head, rows }) {
  const cell = (value) => make("td", { class: typeof value === "string" ? "words" : null }, String(value ?? "–"));
  return make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption }, make("table", {}, make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...rows.map(([first, ...rest]) => make("tr", {}, make("th", { scope: "row" }, String(first)), ...rest.map(cell))))));
}

// -- keys -------------------------------------------------------------------------------------------

const KEYS = {
  n: () => move(1), p: () => move(-1), e: () => edit(page.selected), f: () => flag(page.selected),
  b: () => choose(page.selected), "=": () => choose(TIE), s: toggleScores, "?": toggleHelp,
  ArrowUp: () => select(page.selected - 1), ArrowDown: () => select(page.selected + 1),
  ArrowLeft: () => page.line.answers.length === 2 && choose(0),
  ArrowRight: () => page.line.answers.length === 2 && choose(1),
};

function onKey(event) {
  if (page.ended || page.editing || !page.line || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("textarea, input:not([type=checkbox])")) return;
  if (/^[1-5]$/.test(event.key)) rate(page.selected, Number(event.key));
  else if (KEYS[event.key]) KEYS[event.key]();
  else return;
  event.preventDefault();
}

async function start() {
  page.info = await call("overview");
  if (!page.info) return;
  showRubric(page.info.rubric);
  document.querySelectorAll(".pairs").forEach((part) => { part.hidden = page.info.runs < 2; });
  document.addEventListener("keydown", onKey);
  byId("previous").addEventListener("click", () => move(-1));
  byId("next").addEventListener("click", () => move(1));
  byId("scores").addEventListener("change", toggleScores);
  byId("help").addEventListener("click", toggleHelp);
  byId("end").addEventListener("click", end);
  if (page.info.ended) loadSummary();
  else open(page.info.position);
}

start();
