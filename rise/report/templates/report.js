"use strict";
/* The browser of episodes. What a model has written becomes text nodes and MathML elements, which
   are made one by one; nothing of it is parsed as markup. */

const PAGE = 100;
const MATHML = "http://www.w3.org/1998/Math/MathML";
const MARKS = { right: "✓", wrong: "✗", no_answer: "–", timeout: "⏱" };
const WORDS = { right: "right", wrong: "wrong", no_answer: "no answer", timeout: "not graded" };

const byId = (id) => document.getElementById(id);
let data = null;
let found = [];
let shown = 0;

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/* --- which episodes ------------------------------------------------------------------------ */

const verdictAt = (episode, turn) => {
  const played = episode.turns[turn - 1];
  return played ? played.samples[played.chosen].v : null;
};

function rightAt(run, episode, turn) {
  if (run.forced) return verdictAt(episode, turn) === "right";
  // An oracle stops at the first success: what is solved stays solved.
  return episode.turns.slice(0, turn).some((_, index) => verdictAt(episode, index + 1) === "right");
}

const someSample = (episode, test) => episode.turns.some((turn) => turn.samples.some(test));

function filtersOf(run) {
  const filters = [["all", "all episodes"]];
  const pairs = [];
  for (let turn = 1; turn < run.turns; turn += 1) pairs.push([turn, turn + 1]);
  if (run.turns > 2) pairs.push([1, run.turns]);
  const names = { fixed: "fixed", broken: "broken", kept: "stayed right", wrong: "stayed wrong" };
  for (const [kind, words] of Object.entries(names)) {
    for (const [t, u] of pairs) filters.push([`${kind}:${t}:${u}`, `${words}, turn ${t} to ${u}`]);
  }
  filters.push(["never", "never right"], ["always", "right at every turn"]);
  if (run.episodes.some((episode) => episode.vote !== null)) {
    filters.push(["voted", "vote over the turns right"], ["outvoted", "vote over the turns wrong"]);
  }
  filters.push(["cut", "cut at the token limit"], ["no_answer", "no answer at some turn"]);
  return filters;
}

function passes(run, episode, filter) {
  const [kind, t, u] = filter.split(":");
  if (kind === "all") return true;
  if (kind === "cut") return someSample(episode, (sample) => sample.cut);
  if (kind === "no_answer") return someSample(episode, (sample) => sample.v === "no_answer");
  if (kind === "voted") return episode.vote === true;
  if (kind === "outvoted") return episode.vote === false;
  const turns = Array.from({ length: run.turns }, (_, index) => index + 1);
  if (kind === "never") return !turns.some((turn) => rightAt(run, episode, turn));
  if (kind === "always") return turns.every((turn) => rightAt(run, episode, turn));
  const before = rightAt(run, episode, Number(t));
  const after = rightAt(run, episode, Number(u));
  return before === (kind === "kept" || kind === "broken") && after === (kind === "kept" || kind === "fixed");
}

function mentions(episode, words) {
  if (!words) return true;
  const question = data.questions[episode.id].text.plain.toLowerCase();
  return question.includes(words)
    || someSample(episode, (sample) => sample.text.plain.toLowerCase().includes(words));
}

/* --- what one looks like ------------------------------------------------------------------- */

function formula(tree) {
  const [tag, attributes, ...children] = tree;
  const node = document.createElementNS(MATHML, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  for (const child of children) node.append(typeof child === "string" ? child : formula(child));
  return node;
}

function textOf(text, tag = "div") {
  const node = element(tag, { class: "text" });
  for (const piece of text.pieces || [text.plain]) {
    if (typeof piece === "string") {
      node.append(piece);
    } else {
      const math = formula(data.formulas[piece[0]]);
      if (piece[1]) math.setAttribute("display", "block");
      node.append(piece[1] ? element("span", { class: "own-line" }, math) : math);
    }
  }
  return node;
}

function attempt(sample, name) {
  const told = sample.a === null ? "" : `, answer ${sample.a}`;
  const cut = sample.cut ? ", cut at the token limit" : "";
  const verdict = element("span", { class: sample.v }, `${MARKS[sample.v]} ${WORDS[sample.v]}`);
  const title = element("h4", {}, `${name}: `, verdict, told, cut);
  return element("div", { class: `attempt is-${sample.v}` }, title, textOf(sample.text));
}

/* The samples beside the one that the episode goes on with. */
function others(turn, number) {
  const rest = turn.samples.map((sample, index) => [sample, index]);
  rest.splice(turn.chosen, 1);
  const marks = rest.map(([sample]) => MARKS[sample.v]).join(" ");
  const summary = element("summary", {}, `Other samples of turn ${number}: ${marks}`);
  return element("details", {}, summary,
    ...rest.map(([sample, index]) => attempt(sample, `Turn ${number}, sample ${index + 1}`)));
}

function bodyOf(episode) {
  const question = data.questions[episode.id];
  const reference = element("details", {}, element("summary", {}, "Reference answer"));
  reference.append(textOf(question.reference));
  const body = element("div", { class: "body" }, textOf(question.text), reference);
  episode.turns.forEach((turn, index) => {
    if (turn.stands) {
      body.append(element("p", {}, `Turn ${index + 1}: the answer stands.`));
      return;
    }
    body.append(attempt(turn.samples[turn.chosen], `Turn ${index + 1}`));
    if (turn.samples.length > 1) body.append(others(turn, index + 1));
    if (turn.check) {
      const title = `The model's own check: ${turn.check.says}`;
      const check = element("details", { class: "check" }, element("summary", {}, title));
      check.append(textOf(turn.check.text));
      body.append(check);
    }
  });
  return body;
}

function itemOf(run, episode) {
  const marks = element("span", { class: "marks", role: "img" });
  const said = [];
  for (let turn = 1; turn <= episode.turns.length; turn += 1) {
    const verdict = verdictAt(episode, turn);
    said.push(`turn ${turn} ${WORDS[verdict]}`);
    marks.append(element("span", { class: verdict }, MARKS[verdict]));
  }
  marks.setAttribute("aria-label", said.join(", "));
  const question = data.questions[episode.id].text.plain;
  const start = question.length > 110 ? `${question.slice(0, 110)}…` : question;
  const details = element("details", {}, element("summary", {}, `#${episode.id}`, marks, start));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(bodyOf(episode));
  });
  return element("li", {}, details);
}

/* --- the page ------------------------------------------------------------------------------ */

function showMore() {
  const run = data.runs[Number(byId("run").value)];
  const next = found.slice(shown, shown + PAGE);
  byId("list").append(...next.map((episode) => itemOf(run, episode)));
  shown += next.length;
  byId("more").hidden = shown >= found.length;
  byId("more").textContent = `Show ${Math.min(PAGE, found.length - shown)} more`;
}

function refresh() {
  const run = data.runs[Number(byId("run").value)];
  const words = byId("search").value.trim().toLowerCase();
  const filter = byId("filter").value;
  found = run.episodes.filter((e) => passes(run, e, filter) && mentions(e, words));
  shown = 0;
  byId("list").replaceChildren();
  byId("count").textContent = `${found.length} of ${run.episodes.length} episodes`;
  showMore();
}

function chooseRun() {
  const run = data.runs[Number(byId("run").value)];
  const before = byId("filter").value;
  const options = filtersOf(run).map(([value, words]) => element("option", { value }, words));
  byId("filter").replaceChildren(...options);
  if (options.some((option) => option.value === before)) byId("filter").value = before;
  refresh();
}

function jump(event) {
  byId("run").value = event.currentTarget.dataset.run;
  chooseRun();
  byId("filter").value = event.currentTarget.dataset.filter;
  refresh();
  byId("episodes").scrollIntoView();
  byId("episodes").focus();
}

function toggleTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : window.matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
}

async function start() {
  byId("theme").hidden = false;
  byId("theme").addEventListener("click", toggleTheme);
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  data = await unpack(byId("data").textContent);
  byId("run").addEventListener("change", chooseRun);
  byId("filter").addEventListener("change", refresh);
  byId("search").addEventListener("input", refresh);
  byId("more").addEventListener("click", showMore);
  for (const button of document.querySelectorAll(".jump")) button.addEventListener("click", jump);
  chooseRun();
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => {
  byId("count").textContent = `The episodes cannot be opened (${error.message}): use a browser of 2023 or later.`;
});
