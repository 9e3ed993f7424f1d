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
    response = await fetch("feedback", { method: "POST", headers: { "content-type": "application/json" }, body });
  } catch {
    throw new Error("The feedback was not saved: the server cannot be reached. Is `phi3 serve` still running?");
  }
  if (!response.ok) throw new Error(await errorOf(response));
}

// The buttons below one answer. `body` is the element with its text, and `show` replaces that text.
function feedbackBar(chat, turn, answer, body, show) {
  const bar = make("div", { class: "feedback", role: "group", "aria-label": `Feedback on the answer from ${answer.connection}` });
  const note = make("span", { class: "saved" });
  const below = make("div", { class: "below" });
  const element = make("div", {}, bar, below);
  let isSending = false;
  let form = null; // the open text box

  // Sends a record. If that fails, it says so, and the same record can be sent again.
  async function save(record, onSaved) {
    if (isSending) return;
    isSending = true;
    below.querySelector(".error")?.remove();
    note.textContent = "saving …";
    try {
      await sendFeedback(record);
    } catch (error) {
      note.textContent = "";
      const retry = make("button", { type: "button", onclick: () => save(record, onSaved) }, "Try again");
      below.append(make("div", { class: "error", role: "alert" }, `${error.message} `, retry));
      return;
    } finally {
      isSending = false;
    }
    answer.feedback ??= {};
    onSaved(answer.feedback);
    persist();
    press();
    note.textContent = "saved";
    announce("Feedback saved");
  }

  function press() {
    for (const [button, isPressed] of pressed) button.setAttribute("aria-pressed", String(isPressed()));
  }

  function rate(kind) {
    return () => {
      if (answer.feedback?.rating !== kind) save(feedbackOn(chat, turn, answer, kind, {}), (state) => { state.rating = kind; });
    };
  }

  // Opens a text box; only one at a time. That of a correction takes the place of the answer.
  function openEditor(button, label, text, longest, toSave) {
    if (form) return;
    const rows = Math.min(12, text.split("\n").length + 2);
    const box = make("textarea", { "aria-label": label, maxlength: longest, rows, title: "Ctrl+Enter saves, Escape cancels" });
    box.value = text;
    const close = () => {
      form.remove();
      form = null;
      below.querySelector(".error")?.remove();
      body.hidden = false;
      show(currentText(answer));
      button.focus();
    };
    const cancel = make("button", { type: "button", onclick: close }, "Cancel");
    const submit = make("button", { type: "submit", class: "primary" }, "Save");
    let last = null; // the same text, sent again, has the same id: it is stored once
    form = make("form", { class: "editor", "aria-label": label }, box, make("div", { class: "buttons" }, submit, cancel));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const value = box.value.trim();
      if (!value || value === text.trim()) { note.textContent = "nothing has changed"; announce("Nothing has changed"); return; }
      if (last?.value !== value) last = { value, ...toSave(value) };
      save(last.record, (state) => { last.onSaved(state); close(); });
    });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { event.stopPropagation(); close(); }
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit(); }
    });
    body.hidden = button === edit;
    if (body.hidden) body.after(form);
    else below.prepend(form);
    note.textContent = "";
    form.scrollIntoView({ block: "nearest" });
    box.focus();
  }

  const up = make("button", { type: "button", class: "quiet", "aria-label": "Good answer", title: "Good answer", onclick: rate("thumbs_up") }, thumb(true));
  const down = make("button", { type: "button", class: "quiet", "aria-label": "Bad answer", title: "Bad answer", onclick: rate("thumbs_down") }, thumb(false));
  const edit = make("button", { type: "button", class: "quiet", onclick: () => {
    openEditor(edit, "Corrected answer", currentText(answer), MAX_EDIT, (edited) => ({
      record: feedbackOn(chat, turn, answer, "edit", { edited }), onSaved: (state) => { state.edited = edited; } }));
  } }, "Edit");
  const comment = make("button", { type: "button", class: "quiet", onclick: () => {
    openEditor(comment, "Comment on the answer", answer.feedback?.comment || "", MAX_COMMENT, (text) => ({
      record: feedbackOn(chat, turn, answer, "comment", { comment: text }), onSaved: (state) => { state.comment = text; } }));
  } }, "Comment");
  const pressed = new Map([
    [up, () => answer.feedback?.rating === "thumbs_up"],
    [down, () => answer.feedback?.rating === "thumbs_down"],
  ]);
  bar.append(up, down, edit, comment, note);
  press();

  // Adds the button for the better one of two answers, when both are complete.
  function addChoice(other, onChosen) {
    const isBetter = () => turn.better === turn.answers.indexOf(answer);
    const choose = make("button", { type: "button", class: "quiet choice", onclick: () => {
      if (isBetter()) return;
      const record = feedbackOn(chat, turn, answer, "choice", { chosen: answer.text, rejected: other.text });
      save(record, () => { turn.better = turn.answers.indexOf(answer); onChosen(); });
    } }, "This one is better");
    pressed.set(choose, isBetter);
    note.before(choose);
    press();
  }

  return { element, addChoice, press };
}

// Lets the user choose between the two answers to a question. `bars` are those of the answers, or null.
function offerChoice(turn, bars) {
  if (turn.answers.length !== 2 || !bars.every(Boolean)) return;
  const pressAll = () => bars.forEach((bar) => bar.press());
  turn.answers.forEach((answer, n) => bars[n].addChoice(turn.answers[1 - n], pressAll));
}

// Says visibly that feedback is stored, and where.
function showFeedbackNotice() {
  const notice = byId("feedback-notice");
  notice.replaceChildren("Feedback that you give on answers is stored, with the question, the answer and the earlier "
    + "messages, in ", make("code", {}, page.info.feedback), " on the machine that serves this page.");
  notice.hidden = false;
}
