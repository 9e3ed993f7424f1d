// Sends a question to each connection, and reads the answers while they arrive.
"use strict";

// The tool's text for an error after the answer has started, when the status cannot change any more.
const BROKE_OFF = /^\s*\[The answer broke off: (.*)\]$/s;
// The errors of the endpoint and of the client for a conversation that is too long.
const TOO_LONG = /context window (?:of|has) (\d+)/;
const EMPTY_ANSWER = "The model ended its answer before the first word. A small model does this if a question is "
  + "unlike its training data. Ask in other words, or start a new chat.";

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
  const turn = { question, answers: sides().map((side) => ({ connection: side.connection, start: page.info.start, text: "" })) };
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
  offerChoice(chat, turn, drawn.map((item) => item.bar()));
  if (page.running === running) { page.running = null; busy(false); }
  if (page.outdated) loadAgain(true);
  persist();
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
