"use strict";
// Draws the rows in sight. Nothing of the data is ever read as HTML: texts are set as text, and
// what is put together as markup is numbers and the names of this page's own classes.

const data = JSON.parse(document.getElementById("data").textContent);
const [AT, KIND, LANE, TEXT, PEER, SENT] = [0, 1, 2, 3, 4, 5];
const { lanes, kinds, roles, rows, turns, bars } = data;
const EVENTS = new Set(["start", "crash", "power", "failed", "pause", "resume", "wipe", "rot",
  "fault", "leader", "violation"].map((name) => kinds.indexOf(name)));
const SPAN_MAX = 12; // Rows that an arrow may cross.
const find = (id) => document.getElementById(id);
const stage = find("stage");

if (rows.length > 0) begin();

function begin() {
  const narrow = matchMedia("(max-width: 40rem)");
  const [controls, sheet, head] = [find("controls"), find("sheet"), find("head")];
  let shown = []; // The numbers of the rows that pass the filters.
  let chosen = -1; // The number of the row whose details are shown.
  let size = {};

  // Measures.

  function measure() {
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const time = (narrow.matches ? 4.6 : 6.2) * rem;
    const [lane, world] = narrow.matches ? [46, 46] : [64, 64];
    const height = narrow.matches ? 28 : 23;
    const width = time + world + lane * (lanes.length - 1) + 8;
    const x = lanes.map((_, n) => n === 0 ? time + world / 2 : time + world + lane * (n - 0.5));
    size = { time, lane, world, height, width, x };
    sheet.style.minWidth = head.style.minWidth = `${width + 42 * rem}px`;
  }

  const headHeight = () => head.offsetHeight;
  const firstInSight = () => Math.max(0, Math.floor(stage.scrollTop / size.height));
  const inSight = () => Math.ceil((stage.clientHeight - headHeight()) / size.height);

  // Filters.

  function matcher() {
    const form = new FormData(controls);
    const groups = new Set(form.getAll("group").map(Number));
    const hidden = new Set(data.groups.flatMap((some, n) => groups.has(n) ? [] : some));
    const node = lanes.indexOf(form.get("node") || "-");
    const text = String(form.get("text")).trim().toLowerCase();
    const from = form.get("from") === "" ? -Infinity : Number(form.get("from"));
    const to = form.get("to") === "" ? Infinity : Number(form.get("to"));
    return (row) => !hidden.has(row[KIND]) && row[AT] >= from && row[AT] <= to
      && (node < 0 || row[LANE] === node || row[PEER] === node || row[LANE] === 0)
      && (text === "" || `${who(row)} ${row[TEXT]}`.toLowerCase().includes(text));
  }

  function filter() {
    const anchor = chosen >= 0 ? chosen : shown[firstInSight()] ?? 0;
    const matches = matcher();
    shown = [];
    rows.forEach((row, number) => { if (matches(row)) shown.push(number); });
    sheet.style.height = `${shown.length * size.height}px`;
    const all = rows.length.toLocaleString("en");
    find("status").textContent = shown.length === rows.length
      ? `All ${all} rows.` : `${shown.length.toLocaleString("en")} of ${all} rows; the others are `
        + "filtered out by what is set above.";
    bring(place(anchor), false);
    draw();
  }

  // Places: where in ``shown`` the first row is whose number is at least that.

  function place(number) {
    let [low, high] = [0, shown.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (shown[middle] < number) low = middle + 1; else high = middle;
    }
    return low;
  }

  function lastUntil(at) { // The last place whose time is not after ``at``; -1 if there is none.
    let [low, high] = [0, shown.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (rows[shown[middle]][AT] <= at) low = middle + 1; else high = middle;
    }
    return low - 1;
  }

  // Drawing.

  function draw() {
    const first = Math.max(0, firstInSight() - 8);
    const last = Math.min(shown.length, firstInSight() + inSight() + 16);
    drawRows(first, last);
    drawLanes(first, last);
    drawHead();
    const window = [firstInSight(), Math.min(shown.length, firstInSight() + inSight()) - 1];
    showWindow(...window.map((n) => rows[shown[n]]?.[AT] ?? 0));
  }

  function drawRows(first, last) {
    const made = [];
    for (let n = first; n < last; n++) {
      const number = shown[n], row = rows[number];
      const line = document.createElement("div");
      line.className = `row ${kinds[row[KIND]]}`;
      line.id = `row-${number}`;
      line.style.top = `${n * size.height}px`;
      line.style.height = `${size.height}px`;
      line.dataset.number = number;
      line.setAttribute("role", "option");
      line.setAttribute("aria-selected", String(number === chosen));
      line.setAttribute("aria-setsize", shown.length);
      line.setAttribute("aria-posinset", n + 1);
      const time = document.createElement("time");
      time.textContent = row[AT].toFixed(narrow.matches ? 4 : 6);
      const text = document.createElement("span");
      text.style.marginLeft = `${size.width - size.time}px`;
      text.textContent = `${who(row)} ${row[TEXT]}`.trim();
      line.append(time, text);
      made.push(line);
    }
    find("rows").replaceChildren(...made);
  }

  function drawLanes(first, last) {
    const parts = [];
    const top = first * size.height, bottom = last * size.height;
    for (const x of size.x) parts.push(line("axis", x, 0, x, bottom - top));
    turns.forEach((known, n) => parts.push(...rolesOf(known, size.x[n + 1], first, last)));
    for (const bar of bars) parts.push(barOf(bar, first, last));
    for (let n = first; n < Math.min(shown.length, last + SPAN_MAX); n++) {
      const row = rows[shown[n]];
      parts.push(row.length > PEER ? arrow(row, n, first) : mark(row, n, first));
    }
    const drawing = find("drawing");
    drawing.style.top = `${top}px`;
    drawing.setAttribute("width", size.width);
    drawing.setAttribute("height", Math.max(0, bottom - top));
    drawing.innerHTML = parts.join("");
  }

  const middle = (n, first) => (n - first + 0.5) * size.height;

  function line(css, x1, y1, x2, y2) {
    return `<line class="${css}" x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}"/>`;
  }

  function rolesOf(known, x, first, last) {
    const parts = [];
    known.forEach(([row, role], n) => {
      const from = n === 0 ? 0 : place(row);
      const to = n + 1 < known.length ? place(known[n + 1][0]) : shown.length;
      if (to <= first || from >= last || from === to) return;
      const half = n === 0 ? 0 : 0.5; // A node becomes what it is in the middle of a row.
      const start = Math.max(from + half, first), end = Math.min(to + 0.5, last);
      parts.push(line(`role ${roles[role]}`, x, (start - first) * size.height, x,
        (end - first) * size.height));
    });
    return parts;
  }

  function barOf([from, to, slot], first, last) {
    const start = Math.max(place(from) + 0.5, first), end = Math.min(place(to) + 0.5, last);
    if (start >= end) return "";
    const x = size.x[0] - size.world / 2 + 6 + slot * 7;
    return `<rect class="bar" x="${x}" y="${(start - first) * size.height}" width="5" `
      + `height="${(end - start) * size.height}"/>`;
  }

  function arrow(row, n, first) {
    const css = kinds[row[KIND]];
    const from = size.x[row[LANE]], to = size.x[row[PEER]], y = middle(n, first);
    const sent = lastUntil(row[SENT]);
    const exact = sent >= 0 && rows[shown[sent]][AT] >= row[SENT] - 1e-6;
    const late = n - sent > SPAN_MAX;
    const start = late ? y : Math.min(y, middle(sent, first) + (exact ? 0 : size.height / 2));
    const side = Math.sign(to - from) || 1;
    const tip = to - side * 5;
    const length = Math.hypot(tip - from, y - start) || 1;
    const [dx, dy] = [(tip - from) / length, (y - start) / length];
    const wing = (s) => `${tip - 8 * dx + s * 3.5 * dy},${y - 8 * dy - s * 3.5 * dx}`;
    return line(`arrow ${css}${late ? " late" : ""}`, from + side * 4, start, tip, y)
      + `<polygon class="point ${css}" points="${tip},${y} ${wing(1)} ${wing(-1)}"/>`;
  }

  function mark(row, n, first) {
    const css = kinds[row[KIND]], y = middle(n, first);
    const worldly = css === "fault" || css === "over" || row[LANE] === 0;
    const x = worldly ? size.x[0] + 10 : size.x[row[LANE]];
    const link = css === "fault" && row[LANE] > 0
      ? line("strikes", x + 6, y, size.x[row[LANE]], y) : "";
    return link + shape(css, x, y);
  }

  function shape(css, x, y) {
    const path = (d, extra = "") => `<path class="mark ${css}${extra}" d="M${x} ${y}${d}"/>`;
    switch (css) {
      case "fault": case "over": return path("m0-6l6 6-6 6-6-6z");
      case "crash": case "power": case "failed":
        return path("m-5-5l10 10m0-10l-10 10", " stroke") + (css === "power"
          ? path("m-9-7h18m0 14h-18", " stroke") : "");
      case "start": return path("m-5-6l11 6-11 6z");
      case "resume": return path("m-5-6l11 6-11 6zm-4 0h2v12h-2z");
      case "pause": return path("m-6-6h4v12h-4zm8 0h4v12h-4z");
      case "leader": return path("m0-7l2 5h5l-4 3 2 6-5-4-5 4 2-6-4-3h5z");
      case "wipe": return path("m-6-6h12v12h-12z", " stroke");
      case "rot": case "violation": return path("m-6-6h12v12h-12z");
      case "answer": return path("m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z");
      default: return path("m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z");
    }
  }

  function drawHead() {
    const at = shown[Math.min(firstInSight(), shown.length - 1)] ?? 0;
    head.replaceChildren(...lanes.map((name, n) => {
      const cell = document.createElement("div");
      cell.style.left = `${size.x[n] - size.lane / 2}px`;
      cell.style.width = `${size.lane}px`;
      cell.textContent = n === 0 ? "world" : name;
      const [role, term] = n === 0 ? ["faults", 0] : roleAt(turns[n - 1], at);
      for (const text of [role, term ? `term ${term}` : ""]) {
        const small = document.createElement("small");
        small.textContent = text;
        cell.append(small);
      }
      return cell;
    }));
  }

  function roleAt(known, number) {
    const [, role, term] = known.findLast(([row]) => row <= number) ?? known[0];
    return [roles[role], term];
  }

  // What is chosen.

  function who(row) {
    if (row.length > PEER) return `${lanes[row[LANE]]} > ${lanes[row[PEER]]}`;
    return row[LANE] === 0 ? "" : lanes[row[LANE]];
  }

  function choose(number) {
    chosen = number;
    stage.setAttribute("aria-activedescendant", `row-${number}`);
    const row = rows[number];
    const parts = [paragraph(`${row[AT].toFixed(6)} s ${who(row)}`), paragraph(row[TEXT])];
    if (row.length > PEER) {
      const took = `${((row[AT] - row[SENT]) * 1000).toFixed(3)} ms`;
      parts.push(paragraph(`Sent at ${row[SENT].toFixed(6)} s, took ${took}. `,
        button("Go to where it was sent", () => goTo(row[SENT]))));
    }
    parts.push(paragraph(turns.map((known, n) => {
      const [role, term] = roleAt(known, number);
      return `${lanes[n + 1]} ${role}${term ? ` in term ${term}` : ""}`;
    }).join(", ")));
    parts.at(-1).className = "faint";
    find("detail").replaceChildren(...parts);
  }

  function paragraph(text, ...more) {
    const made = document.createElement("p");
    made.append(text, ...more);
    return made;
  }

  function button(text, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.addEventListener("click", act);
    return made;
  }

  function chooseAt(n, centre = false) {
    if (!shown.length) return;
    const to = Math.max(0, Math.min(n, shown.length - 1));
    choose(shown[to]);
    bring(to, centre);
    draw();
  }

  function bring(n, centre) {
    const top = n * size.height, room = stage.clientHeight - headHeight() - size.height;
    if (centre) stage.scrollTop = top - room / 2;
    else if (top < stage.scrollTop) stage.scrollTop = top;
    else if (top > stage.scrollTop + room) stage.scrollTop = top - room;
  }

  function goTo(at) {
    chooseAt(Math.max(0, lastUntil(at + 1e-6)), true);
    stage.focus({ preventScroll: true });
  }

  const current = () => chosen >= 0 ? place(chosen) : firstInSight();

  function stepEvent(step) {
    for (let n = current() + step; n >= 0 && n < shown.length; n += step) {
      if (EVENTS.has(rows[shown[n]][KIND])) return chooseAt(n, true);
    }
    find("status").textContent = step > 0 ? "No event after this row." : "No event before this row.";
  }

  // The strips at a glance.

  const strips = find("glance");
  const since = Number(strips.dataset.since), until = Number(strips.dataset.until);

  function showWindow(from, to) {
    const place = (at) => `${(100 * (at - since) / (until - since)).toFixed(2)}%`;
    const edge = `linear-gradient(to right, transparent ${place(from)}, var(--focus) 0, `
      + `var(--focus) calc(max(${place(to)}, ${place(from)} + 2px)), transparent 0)`;
    strips.querySelector(".ticks").style.background = `${edge} top / 100% 3px no-repeat`;
  }

  strips.addEventListener("click", (event) => {
    const strip = event.target.closest("svg");
    if (strip === null) return;
    const box = strip.getBoundingClientRect();
    goTo(since + (until - since) * (event.clientX - box.left) / box.width);
  });

  // Hands.

  const steps = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity };
  stage.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const page = { PageDown: inSight() - 1, PageUp: 1 - inSight() }[event.key];
    const step = steps[event.key] ?? page;
    if (step !== undefined) chooseAt(current() + (chosen < 0 && step === 1 ? 0 : step));
    else if (event.key === "n") stepEvent(1);
    else if (event.key === "p") stepEvent(-1);
    else return;
    event.preventDefault();
  });
  stage.addEventListener("click", (event) => {
    const line = event.target.closest(".row");
    if (line !== null) { choose(Number(line.dataset.number)); draw(); }
  });
  document.querySelectorAll("[data-at]").forEach((one) =>
    one.addEventListener("click", () => {
      chooseAt(lastUntil(Number(one.dataset.at) - 1e-6) + 1, true); // The first row of that time.
      stage.focus({ preventScroll: true });
      stage.scrollIntoView({ block: "nearest" });
    }));
  document.querySelectorAll("[data-step]").forEach((one) =>
    one.addEventListener("click", () => stepEvent(Number(one.dataset.step))));
  controls.addEventListener("input", filter);
  controls.addEventListener("reset", () => setTimeout(filter));
  controls.addEventListener("submit", (event) => event.preventDefault());
  let due = false;
  stage.addEventListener("scroll", () => {
    if (!due) requestAnimationFrame(() => { due = false; draw(); });
    due = true;
  }, { passive: true });
  const again = () => { measure(); filter(); };
  narrow.addEventListener("change", again);
  addEventListener("resize", draw);

  measure();
  filter();
}
