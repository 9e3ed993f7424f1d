// Feedback on answers: thumbs, a correction, a comment, and the better one of two answers. It is sent to the
// server, which stores it. The page remembers in the browser what was saved.
"use strict";

const THUMB = "M2 8.6h3.2v8.8H2z M6.6 8.4 9.8 2c1.5 0 2.4 1 2.4 2.3l-.5 3.1h4.6c1.1 0 1.8 1 1.6 2l-1.4 6.4c-.2 1-1 1.6-2 1.6H9.3l-2.7-1.2z";
const MAX_COMMENT = 10000;
const MAX_EDIT = 200000;
const SVG = "http://www.w3.org/2000/svg";

function newId() {
  if (crypto.randomUUID) return crypto.randomUUID(); // only where the page is secure: https, or this machine
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function thumb(isUp) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", THUMB);
  if (!isUp) path.setAttribute("transform", "rotate(180 10 10)");
  svg.append(path);
  return svg;
}

// The answer as it counts from now on: corrected, if the user has corrected it.
function currentText(answer) {
  return answer.feedback?.edited ?? answer.text;
}

// Only for complete answers, and only of this start of the server: another one may have had another flow or model.
function takesFeedback(answer) {
  const { info } = page;
  return Boolean(info?.feedback && answer.text && !answer.error && !answer.stopped && answer.start === info.start);
}

// Everything that the server needs to know about one answer, besides its own part.
function feedbackOn(chat, turn, answer, kind, fields) {
  const index = chat.turns.indexOf(turn);
  const other = turn.answers.find((each) => each !== answer);
  const pairs = earlierTurns(chat.turns.slice(0, index), answer.connection).slice(answer.leftOut || 0);
  const history = pairs.flatMap(({ inputs, outputs }) => [
    { role: "user", content: inputs.question }, { role: "assistant", content: outputs.answer }]);
  const record = {
    id: newId(), kind, conversation: chat.id, turn: index + 1, history, question: turn.question,
    answer: answer.text, connection: answer.connection, ...fields };
  return other ? { ...record, against: other.connection } : record;
}

// Half of a surrogate pair, which a model can produce, cannot be stored.
function wellFormed(name, value) {
  return typeof value === "string" && value.toWellFormed ? value.toWellFormed() : value;
}

// Throws an Error whose message says why the feedback was not saved.
async function sendFeedback(record) {
  let response;
  try {
    const body = JSON.stringify(record, wellFormed);
    const headers = { "content-type": "application/json", "x-phi3-start": page.info.start };
    response = await fetch("feedback", { method: "POST", headers, body });
  } catch {
    throw new Error("The feedback was not saved: the server cannot be reached. Is `phi3 serve` still running?");
  }
  if (!response.ok) throw new Error(await errorOf(response));
}

// Returns a function that stores a record, one at a time, and says how it went; it returns whether the record was
// stored. `again` is what "Try again" does after a failure.
function makeSaver(bar, note, below, onStored) {
  return async function save(record, onSaved, again = () => save(record, onSaved)) {
    if (bar.hasAttribute("aria-busy")) return false;
    bar.setAttribute("aria-busy", "true");
    below.querySelector(".error")?.remove();
    note.textContent = "saving …";
    try {
      await sendFeedback(record);
    } catch (error) {
      note.textContent = "";
      const retry = make("button", { type: "button", onclick: again }, "Try again");
      below.append(make("div", { class: "error", role: "alert" }, `${error.message} `, retry));
      return false;
    } finally {
      bar.removeAttribute("aria-busy");
    }
    onSaved();
    onStored();
    note.textContent = "saved";
    announce("Feedback saved");
    drawChanges();
    return true;
  };
}

// A text box. It closes when `save` has stored its text, or when the user cancels, but not while it is being saved.
function makeEditor({ label, text, longest, note }, toRecord, save, onClosed) {
  const rows = Math.min(12, text.split("\n").length + 2);
  const box = make("textarea", { "aria-label": label, maxlength: longest, rows, title: "Ctrl+Enter saves, Escape cancels" });
  box.value = text;
  const close = () => { form.remove(); onClosed(); };
  const cancel = make("button", { type: "button", onclick: close }, "Cancel");
  const submit = make("button", { type: "submit", class: "primary" }, "Save");
  const form = make("form", { class: "editor", "aria-label": label }, box, make("div", { class: "buttons" }, submit, cancel));
  let last = null; // the same text, sent again, has the same id: it is stored once
  let isSaving = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (isSaving) return;
    const value = box.value.trim();
    if (!value || value === text.trim()) { note.textContent = "nothing has changed"; announce("Nothing has changed"); return; }
    if (last?.value !== value) last = { value, record: toRecord(value) };
    isSaving = cancel.disabled = box.readOnly = true;
    const isStored = await save(last.record, () => form.requestSubmit());
    isSaving = cancel.disabled = box.readOnly = false;
    if (isStored) close();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { event.stopPropagation(); if (!isSaving) close(); }
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit(); }
  });
  return form;
}

// Whether a redrawn page would lose a text, an error with "Try again", or the result of a record on its way.
function isGivingFeedback() {
  return byId("log").querySelector(".editor, .below .error, .feedback[aria-busy]") !== null;
}

// The buttons below one answer. `body` is the element with its text, and `show` replaces that text.
function feedbackBar(chat, turn, answer, body, show) {
  const bar = make("div", { class: "feedback", role: "group", "aria-label": `Feedback on the answer from ${answer.connection}` });
  const note = make("span", { class: "saved" });
  const below = make("div", { class: "below" });
  const pressed = new Map(); // button -> whether it is pressed
  const recordOf = (kind, fields) => feedbackOn(chat, turn, answer, kind, fields);
  const save = makeSaver(bar, note, below, () => { persist(); press(); });
  let isEditing = false;

  function press() {
    for (const [button, isPressed] of pressed) button.setAttribute("aria-pressed", String(isPressed()));
  }

  function thumbButton(kind, label) {
    const isPressed = () => answer.feedback?.rating === kind;
    const rate = () => { if (!isPressed()) save(recordOf(kind, {}), () => change(answer, { rating: kind })); };
    const button = make("button", { type: "button", class: "quiet", "aria-label": label, title: label, onclick: rate }, thumb(kind === "thumbs_up"));
    pressed.set(button, isPressed);
    return button;
  }

  // A button that opens a text box; only one at a time. That of a correction takes the place of the answer.
  function editorButton(caption, label, longest, toRecord, field) {
    const button = make("button", { type: "button", class: "quiet", onclick: openEditor }, caption);
    const saveText = (record, again) => save(record, () => change(answer, { [field]: record[field] }), again);
    function openEditor() {
      if (isEditing) return;
      isEditing = true;
      note.textContent = "";
      const text = field === "edited" ? currentText(answer) : answer.feedback?.comment || "";
      const editor = makeEditor({ label, text, longest, note }, toRecord, saveText, onClosed);
      body.hidden = field === "edited";
      if (body.hidden) body.after(editor);
      else below.prepend(editor);
      editor.scrollIntoView({ block: "nearest" });
      editor.querySelector("textarea").focus();
    }
    function onClosed() {
      isEditing = false;
      below.querySelector(".error")?.remove();
      body.hidden = false;
      show(currentText(answer));
      button.focus();
      drawChanges();
    }
    return button;
  }

  // A correction that restores the first answer takes an earlier correction back.
  const toEdit = (text) => recordOf("edit", { edited: text === answer.text.trim() ? answer.text : text });
  bar.append(thumbButton("thumbs_up", "Good answer"), thumbButton("thumbs_down", "Bad answer"),
    editorButton("Edit", "Corrected answer", MAX_EDIT, toEdit, "edited"),
    editorButton("Comment", "Comment on the answer", MAX_COMMENT, (comment) => recordOf("comment", { comment }), "comment"), note);
  press();
  return { element: make("div", {}, bar, below), press, pressed, note, save };
}

function change(answer, fields) {
  answer.feedback = { ...answer.feedback, ...fields };
}

// Lets the user choose between the two answers to a question. `bars` are those of the answers, or null.
function offerChoice(chat, turn, bars) {
  if (turn.answers.length !== 2 || !bars.every(Boolean)) return;
  const pressAll = () => bars.forEach((bar) => bar.press());
  bars.forEach((bar, n) => {
    const [chosen, rejected] = [turn.answers[n].text, turn.answers[1 - n].text];
    const choose = () => {
      if (turn.better === n) return;
      bar.save(feedbackOn(chat, turn, turn.answers[n], "choice", { chosen, rejected }), () => { turn.better = n; pressAll(); });
    };
    const button = make("button", { type: "button", class: "quiet choice", onclick: choose }, "This one is better");
    bar.pressed.set(button, () => turn.better === n);
    bar.note.before(button);
  });
  pressAll();
}

// Says visibly that feedback is stored, and where.
function showFeedbackNotice() {
  const notice = byId("feedback-notice");
  notice.replaceChildren("Feedback that you give on answers is stored, with the question, the answer and the earlier "
    + "messages, in ", make("code", {}, page.info.feedback), " on the machine that serves this page.");
  notice.hidden = false;
}
