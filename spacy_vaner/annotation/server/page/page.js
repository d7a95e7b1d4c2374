"use strict";

const EXAMPLE =
  "Cisplatin-induced nephrotoxicity in BRCA1-deficient mice. Mice that were given cisplatin " +
  "showed acute kidney injury, with higher serum creatinine and more expression of TNF-α and " +
  "p53. Folic acid and zinc eased the injury, while 5-fluorouracil and aspirin did not. In " +
  "patients with breast cancer the same treatment caused hearing loss and anemia.";
const COLORS = ["#f4b6a6", "#a8d8b9", "#a9c6ee", "#f2d88f", "#d9c3ea", "#f0c4dc", "#c5d5c0", "#bcd9dd"];
const STRONG = ["#b8442a", "#2b7a4b", "#2f62a8", "#8a6a00", "#7a4a9c", "#a03a72", "#55703c", "#2c7580"];

const at = (id) => document.getElementById(id);

/** What was asked last and the answer to it; a change of the form does not change what is shown. */
let answered = null;

/** The types that the tagger was trained for; null where it does not say. */
let known = null;

/* The form */

function addType(name, isTicked) {
  for (const other of at("ticks").querySelectorAll("input")) {
    if (other.value === name) {
      other.checked = true;
      return;
    }
  }
  const label = document.createElement("label");
  const tick = document.createElement("input");
  tick.type = "checkbox";
  tick.value = name;
  tick.checked = isTicked;
  label.append(tick, name);
  at("ticks").append(label);
}

function addNewType() {
  const name = at("new-type").value.trim();
  if (name) {
    addType(name, true);
    at("new-type").value = "";
  }
  at("new-type").focus();
}

function asked() {
  const settings = new URLSearchParams();
  if (!at("types").disabled) {
    for (const tick of at("ticks").querySelectorAll("input:checked")) {
      settings.append("types", tick.value);
    }
    const corpus = at("corpus").value.trim();
    if (corpus) {
      settings.append("corpus", corpus);
    }
  }
  return settings;
}

function complain(sentence) {
  at("error").textContent = sentence;
  at("error").hidden = !sentence;
}

/* The server */

async function annotate(text, settings) {
  let answer;
  try {
    answer = await fetch(`annotate?${settings}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ documents: [{ id: "text", text }] }),
    });
  } catch (error) {
    throw new Error("The server does not answer. Is it still running?");
  }
  if (!answer.ok) {
    const refusal = await answer.json().catch(() => ({}));
    throw new Error(refusal.error || `The server answers ${answer.status}.`);
  }
  return answer;
}

async function start() {
  at("text").value = EXAMPLE;
  const answer = await fetch("types").catch(() => null);
  if (!answer || !answer.ok) {
    complain("The server does not answer. Is it still running?");
    return;
  }
  const served = await answer.json();
  at("model").textContent = served.model;
  served.types.forEach((name) => addType(name, true));
  known = served.known_types;
  if (known) {
    known.filter((name) => !served.types.includes(name)).forEach((name) => addType(name, false));
  }
  at("types").disabled = !served.takes_types;
}

async function find() {
  const text = at("text").value;
  const settings = asked();
  complain("");
  if (!text.trim()) {
    complain("There is no text to read.");
    return;
  }
  if (!at("types").disabled && !settings.has("types")) {
    complain("Tick at least one type.");
    return;
  }
  at("find").disabled = true;
  at("status").textContent = "Reading …";
  try {
    const answer = await (await annotate(text, settings)).json();
    const [row] = answer.documents;
    const scores = row.scores || [];
    const places = toUnits(row.text);
    const entities = row.ents.map(([begin, end, type, mention], index) => ({
      begin,
      end,
      type,
      mention,
      score: scores[index] ?? null,
      from: places[begin],
      to: places[end],
    }));
    answered = { text: row.text, settings, entities };
    show();
    at("result").hidden = false;
  } catch (error) {
    at("status").textContent = "";
    complain(error.message);
  } finally {
    at("find").disabled = false;
  }
}

async function download(button) {
  complain("");
  button.disabled = true;
  try {
    const settings = new URLSearchParams(answered.settings);
    settings.append("to", button.dataset.to);
    settings.append("threshold", at("threshold").value);
    const content = await (await annotate(answered.text, settings)).blob();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(content);
    link.download = button.dataset.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  } catch (error) {
    complain(error.message);
  } finally {
    button.disabled = false;
  }
}

/* What was found */

/** Offsets of the server count characters, strings here UTF-16 units: from the former to the latter. */
function toUnits(text) {
  const places = [0];
  for (const character of text) {
    places.push(places[places.length - 1] + character.length);
  }
  return places;
}

function show() {
  const least = Number(at("threshold").value);
  at("least").textContent = least.toFixed(2);
  if (!answered) {
    return;
  }
  const shown = answered.entities.filter((one) => one.score === null || one.score >= least);
  const found = new Set(answered.entities.map((one) => one.type));
  // In the order that was asked in: a type keeps its color from text to text.
  const types = [...new Set([...answered.settings.getAll("types"), ...found])];
  const placed = inLanes(shown);
  at("drawn").replaceChildren(...pieces(answered.text, placed, types));
  at("legend").replaceChildren(
    ...types.flatMap((type, index) => (found.has(type) ? [legend(type, index)] : [])),
  );
  at("rows").replaceChildren(...placed.map((one) => tableRow(one)));
  const hidden = answered.entities.length - shown.length;
  at("status").textContent =
    `${shown.length} ${shown.length === 1 ? "entity" : "entities"} found` +
    (hidden ? `, ${hidden} below the score` : "");
  const fresh = known ? answered.settings.getAll("types").filter((type) => !known.includes(type)) : [];
  at("fresh").hidden = !fresh.length;
  at("fresh").textContent =
    `New to this tagger, expect little before it is trained for it: ${fresh.join(", ")}`;
}

/** Entities in the order of the text, each in the first lane that is free: those that overlap differ. */
function inLanes(entities) {
  const ends = [];
  return entities
    .slice()
    .sort((one, other) => one.from - other.from || other.to - one.to)
    .map((one) => {
      let lane = ends.findIndex((end) => end <= one.from);
      lane = lane < 0 ? ends.length : lane;
      ends[lane] = one.to;
      return { ...one, lane };
    });
}

/** The text, cut wherever an entity begins or ends; what is in entities gets a line for each of them. */
function pieces(text, placed, types) {
  const cuts = [...new Set([0, text.length, ...placed.flatMap((one) => [one.from, one.to])])];
  cuts.sort((one, other) => one - other);
  const parts = [];
  let open = [];
  let next = 0;
  for (let index = 0; index + 1 < cuts.length; index += 1) {
    const [from, to] = [cuts[index], cuts[index + 1]];
    open = open.filter((one) => one.to > from);
    while (next < placed.length && placed[next].from <= from) {
      open.push(placed[next]);
      next += 1;
    }
    parts.push(open.length ? mark(text.slice(from, to), from, to, open, types) : text.slice(from, to));
  }
  return parts;
}

function mark(text, from, to, open, types) {
  const part = document.createElement("mark");
  part.textContent = text;
  part.tabIndex = -1;
  part.dataset.from = from;
  part.dataset.tip = open.map((one) => describe(one)).join("\n");
  const ending = open.filter((one) => one.to === to);
  if (ending.length) {
    part.dataset.ends = ending.map((one) => one.type).join(", ");
  }
  const lines = open.map((one) => ({ lane: one.lane, index: types.indexOf(one.type) }));
  const bars = lines.map(({ index }) => flat(STRONG[index % STRONG.length]));
  const fill = flat(COLORS[lines[0].index % COLORS.length]);
  part.style.backgroundImage = [...bars, fill].join(", ");
  part.style.backgroundSize = [...bars.map(() => "100% 3px"), "100% 100%"].join(", ");
  part.style.backgroundPosition = [
    ...lines.map(({ lane }) => `0 calc(100% - ${lane * 4}px)`),
    "0 0",
  ].join(", ");
  return part;
}

const flat = (color) => `linear-gradient(${color}, ${color})`;
const score = (one) => (one.score === null ? "no score" : one.score.toFixed(4));
const describe = (one) => `${one.type}: ${one.mention}\n${score(one)}, characters ${one.begin}–${one.end}`;

function legend(type, index) {
  const entry = document.createElement("span");
  const color = document.createElement("i");
  color.style.background = COLORS[index % COLORS.length];
  color.style.borderBottom = `3px solid ${STRONG[index % STRONG.length]}`;
  entry.append(color, type);
  return entry;
}

function tableRow(one) {
  const row = document.createElement("tr");
  const go = document.createElement("button");
  go.type = "button";
  go.className = "plain";
  go.textContent = one.mention;
  go.addEventListener("click", () => {
    const place = at("drawn").querySelector(`mark[data-from="${one.from}"]`);
    place.scrollIntoView({ block: "center" });
    place.focus();
  });
  const cells = [go, one.type, `${one.begin}–${one.end}`, one.score === null ? "" : score(one)];
  for (const content of cells) {
    const cell = document.createElement("td");
    cell.append(content);
    row.append(cell);
  }
  return row;
}

/* The score beside the pointer, or beside what has the focus */

function showTip(event) {
  const part = event.target.closest?.("mark");
  const tip = at("tip");
  tip.hidden = !part;
  if (part) {
    tip.textContent = part.dataset.tip;
    // Measured at the left, where it is not squeezed.
    tip.style.left = "0";
    const place = part.getClientRects()[0];
    const left = Math.min(place.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left) + window.scrollX}px`;
    tip.style.top = `${place.bottom + 6 + window.scrollY}px`;
  }
}

function hideTip() {
  at("tip").hidden = true;
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  find();
});
at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    find();
  }
});
at("new-type").addEventListener("keydown", (event) => {
  if (event.key === "Enter") {
    event.preventDefault();
    addNewType();
  }
});
at("add").addEventListener("click", addNewType);
at("example").addEventListener("click", () => {
  at("text").value = EXAMPLE;
  at("text").focus();
});
at("threshold").addEventListener("input", show);
for (const button of at("downloads").querySelectorAll("button")) {
  button.addEventListener("click", () => download(button));
}
for (const kind of ["mouseover", "focusin"]) {
  at("drawn").addEventListener(kind, showTip);
}
for (const kind of ["mouseleave", "focusout"]) {
  at("drawn").addEventListener(kind, hideTip);
}
document.addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
start();
