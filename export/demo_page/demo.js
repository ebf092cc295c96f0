// The demonstration: nets run in ONNX Runtime Web on one thread, and their depth is drawn as SVG.
import * as ort from "./runtime/ort.wasm.bundle.min.js";

const $ = (id) => document.getElementById(id);
const STROKE = 26; // Of a side of 320: about that of MNIST's digits.
const MOST_ROWS = 200;

// ---- The nets ----------------------------------------------------------------------------------

const sessions = new Map();
let queue = Promise.resolve();

async function load(file) {
  const answer = await fetch(file);
  if (!answer.ok) throw new Error(`${file}: ${answer.status} ${answer.statusText}`);
  return answer;
}

function open(net) {
  if (!sessions.has(net.file)) {
    const session = load(`nets/${net.file}`)
      .then((answer) => answer.arrayBuffer())
      .then((file) => ort.InferenceSession.create(file, { executionProviders: ["wasm"] }));
    sessions.set(net.file, session);
    session.catch(() => sessions.delete(net.file)); // The next time it is tried anew.
  }
  return sessions.get(net.file);
}

// A session runs one input at a time. Both settings of the depth are inputs that must be given.
function run(net, dims, values, threshold, maxUnroll) {
  const feeds = {
    image: new ort.Tensor("float32", values, dims),
    threshold: new ort.Tensor("float32", [threshold], []),
    max_unroll: new ort.Tensor("int32", [maxUnroll], []),
  };
  const result = queue.then(async () => (await open(net)).run(feeds));
  queue = result.catch(() => {});
  return result;
}

// ---- From a drawing to an image, as in export/preparation.py ------------------------------------

// Means of whole pixels, as Pillow's BOX takes them.
function spans(start, length, count) {
  const scale = length / count, reach = Math.max(scale, 1) / 2;
  return Array.from({ length: count }, (_, n) => {
    const middle = start + (n + 0.5) * scale;
    const first = Math.max(Math.floor(middle - reach + 0.5), start);
    return [first, Math.max(Math.min(Math.floor(middle + reach + 0.5), start + length), first + 1)];
  });
}

function prepare(levels, side, net) {
  const { box, stretch, centre, cells } = net.preparation;
  let sum = 0, strong = 0;
  for (const level of levels) {
    if (level < 0.5) continue;
    sum += level;
    strong += 1;
  }
  if (!strong) return null;
  const ink = sum / strong;
  let [left, top, right, bottom] = [side, side, 0, 0];
  for (let n = 0; n < levels.length; n++) {
    if (levels[n] <= ink / 2) continue;
    const x = n % side, y = (n - x) / side;
    if (x < left) left = x;
    if (x >= right) right = x + 1;
    if (y < top) top = y;
    bottom = y + 1;
  }
  const factors = [box[0] / (bottom - top), box[1] / (right - left)];
  const most = stretch * Math.min(...factors);
  const height = Math.max(Math.round(Math.min(factors[0], most) * (bottom - top)), 1);
  const width = Math.max(Math.round(Math.min(factors[1], most) * (right - left)), 1);
  const columns = spans(left, right - left, width);
  const mark = spans(top, bottom - top, height).map(([y0, y1]) => columns.map(([x0, x1]) => {
    let sum = 0;
    for (let y = y0; y < y1; y++) {
      for (let x = x0; x < x1; x++) sum += Math.min(levels[y * side + x] / ink, 1);
    }
    return sum / ((y1 - y0) * (x1 - x0));
  }));
  const largest = Math.max(...mark.flat());
  const [rows, cols] = net.input_shape.map((size) => size * cells);
  let corner = [(rows - height) >> 1, (cols - width) >> 1];
  if (centre === "mass") {
    let mass = 0, y = 0, x = 0;
    mark.forEach((line, i) => line.forEach((value, j) => { mass += value; y += i * value; x += j * value; }));
    corner = [(rows >> 1) - y / mass, (cols >> 1) - x / mass].map(Math.round);
  }
  corner = [Math.min(Math.max(corner[0], 0), rows - height), Math.min(Math.max(corner[1], 0), cols - width)];
  const values = new Float32Array((rows / cells) * (cols / cells));
  mark.forEach((line, i) => line.forEach((value, j) => {
    const y = Math.floor((corner[0] + i) / cells), x = Math.floor((corner[1] + j) / cells);
    values[y * (cols / cells) + x] += (value / largest) * net.scale / (cells * cells);
  }));
  return values;
}

const fromBase64 = (text) => Float32Array.from(atob(text), (letter) => letter.charCodeAt(0));

function paint(canvas, values, net) {
  [canvas.height, canvas.width] = net.input_shape;
  const pixels = new ImageData(canvas.width, canvas.height);
  values.forEach((value, n) => pixels.data.set([...Array(3).fill((255 * value) / net.scale), 255], 4 * n));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

// ---- Words and pictures --------------------------------------------------------------------------

function short(value, digits = 3) {
  const rounded = Number(value.toPrecision(digits));
  return rounded > 0 && rounded < 1e-4 ? rounded.toExponential() : String(rounded);
}
const percent = (share, digits = 2) => `${(100 * share).toFixed(digits)}%`;
const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
const STATUS = ["converged", "at the limit", "not finite"];

function make(parent, name, attributes = {}, text = "") {
  const svg = name === "svg" || parent instanceof SVGElement;
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== "") node.textContent = text;
  parent.append(node);
  return node;
}

// Returns an empty chart as wide as its place: the SVG, and functions from values to places.
function chart(place, [x0, x1], [y0, y1], label, xTitle, yTitle) {
  const width = Math.max(place.clientWidth, 240), height = 230, [left, right, top, bottom] = [46, 14, 24, 36];
  place.replaceChildren();
  const svg = make(place, "svg", { width, height, role: "img", "aria-label": label });
  const x = (value) => left + ((value - x0) / (x1 - x0)) * (width - left - right);
  const y = (value) => height - bottom - ((value - y0) / (y1 - y0)) * (height - top - bottom);
  make(svg, "text", { x: width - right, y: height - 4, "text-anchor": "end" }, xTitle);
  make(svg, "text", { x: 0, y: 11 }, yTitle);
  const ticks = {
    x: (value, text) => make(svg, "text", { x: x(value), y: height - bottom + 16, "text-anchor": "middle" }, text),
    y: (value, text) => {
      make(svg, "line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) });
      make(svg, "text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, text);
    },
  };
  return { svg, x, y, ticks, left, right: width - right, base: height - bottom };
}

// Round values between two others, at most so many steps apart.
function rounded(low, high, most) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, n) => (first + n) * step);
}

function drawNorms(place, blocks, threshold, chosen) {
  const all = blocks.flatMap((block) => block.norms), positive = all.filter((norm) => norm > 0);
  const log = (value) => Math.log10(Math.max(value, 1e-12));
  const low = Math.floor(log(Math.min(...positive, threshold)) - 0.01);
  const high = Math.max(Math.ceil(log(Math.max(...positive, threshold))), low + 1);
  const longest = Math.max(...blocks.map((block) => block.depth), 4);
  const text = `Norm of the change by update, threshold ${short(threshold)}`;
  const { svg, x, y, ticks, left, right } = chart(place, [1, longest], [low, high], text, "update", "norm, log scale");
  for (const value of rounded(low, high, 6).filter(Number.isInteger)) ticks.y(value, short(10 ** value));
  for (const value of rounded(1, longest, 6).filter(Number.isInteger)) ticks.x(value, value);
  const order = blocks.map((_, n) => n).filter((n) => n !== chosen).concat(chosen);
  for (const n of order) {
    const at = blocks[n].norms.map((norm, k) => `${x(k + 1)},${y(Math.max(log(norm), low))}`);
    make(svg, "polyline", { class: n === chosen ? "line chosen" : "line", points: at.join(" ") });
  }
  blocks[chosen].norms.forEach((norm, k) => {
    make(svg, "circle", { class: "dot", cx: x(k + 1), cy: y(Math.max(log(norm), low)), r: 3.5 });
  });
  make(svg, "line", { class: "limit", x1: left, x2: right, y1: y(log(threshold)), y2: y(log(threshold)) });
  const under = y(log(threshold)) + 15 < y(low) ? 15 : -6;
  make(svg, "text", { class: "limit-text", x: left + 4, y: y(log(threshold)) + under }, `threshold ${short(threshold)}`);
}

function drawDepths(place, blocks, limit, chosen) {
  const sum = blocks.reduce((total, block) => total + block.depth, 0);
  const { svg, x, y, ticks, base } = chart(
    place, [0, blocks.length], [0, limit], `${count(sum, "update")} in ${count(blocks.length, "block")}`, "block", "updates",
  );
  for (const value of rounded(0, limit, 5)) ticks.y(value, value);
  const wide = Math.min((x(1) - x(0)) * 0.78, 56);
  blocks.forEach(({ depth }, n) => {
    const middle = x(n + 0.5);
    make(svg, "rect", {
      class: n === chosen ? "bar chosen" : "bar", x: middle - wide / 2, width: wide, rx: Math.min(wide / 5, 3),
      y: y(depth), height: base - y(depth),
    });
    if (n === chosen) make(svg, "text", { x: middle, y: y(depth) - 5, "text-anchor": "middle" }, depth);
    if (n === 0 || (n + 1) % 10 === 0) ticks.x(n + 0.5, n + 1);
  });
}

function drawTrade(place, table, step, own) {
  const shares = table.map((row) => row.accuracy), most = Math.max(...table.map((row) => row.updates));
  const low = Math.min(...shares), spread = Math.max(Math.max(...shares) - low, 0.02);
  const bounds = [Math.max(low - 0.15 * spread, 0), Math.min(Math.max(...shares) + 0.15 * spread, 1)];
  const now = table[step];
  const text = `Accuracy ${percent(now.accuracy)} at ${now.updates.toFixed(1)} updates an image`;
  const { svg, x, y, ticks } = chart(place, [0, most], bounds, text, "updates an image", "accuracy");
  for (const value of rounded(...bounds, 4)) ticks.y(value, percent(value, spread > 0.1 ? 0 : 1));
  for (const value of rounded(0, most, 6)) ticks.x(value, value);
  make(svg, "polyline", { class: "line", points: table.map((row) => `${x(row.updates)},${y(row.accuracy)}`).join(" ") });
  for (const row of table) make(svg, "circle", { class: "bar", cx: x(row.updates), cy: y(row.accuracy), r: 2.5 });
  make(svg, "circle", { class: "own", cx: x(table[own].updates), cy: y(table[own].accuracy), r: 9 });
  make(svg, "circle", { class: "here", cx: x(now.updates), cy: y(now.accuracy), r: 6 });
}

// ---- Digits --------------------------------------------------------------------------------------

function startDigits(nets) {
  const section = $("digits"), paper = $("paper"), pad = paper.getContext("2d", { willReadFrequently: true });
  const side = paper.width;
  let net, own, picked = null, drawn = false, found = null, asked = false, busy = false;
  const step = () => Number($("threshold").value);
  const threshold = () => net.thresholds[step()].threshold;
  const chosen = () => Math.min(Number($("block").value), found.blocks.length - 1);

  function image() {
    if (picked !== null) return fromBase64(net.images[picked].pixels);
    if (!drawn) return null;
    const { data } = pad.getImageData(0, 0, side, side);
    const levels = new Float32Array(side * side);
    for (let n = 0; n < levels.length; n++) levels[n] = data[4 * n] / 255;
    return prepare(levels, side, net);
  }

  // Predicts for the newest input; those that came while a net was running are left out.
  async function predict() {
    asked = true;
    if (busy) return;
    busy = true;
    section.setAttribute("aria-busy", "true");
    while (asked) {
      asked = false;
      const current = net;
      found = null;
      try {
        if (!sessions.has(current.file)) {
          show();
          $("effort").textContent = "Loading the network …";
        }
        await open(current);
        const start = performance.now(), values = image();
        if (values) {
          const dims = [1, ...current.input_shape];
          const outputs = await run(current, dims, values, threshold(), current.max_unroll);
          found = read(outputs, values, performance.now() - start);
        }
        succeed("digits");
      } catch (error) {
        fail("digits", error);
      }
      if (current === net) show();
      else asked = true;
    }
    busy = false;
    section.setAttribute("aria-busy", "false");
  }

  function read(outputs, values, milliseconds) {
    const norms = Array.from(outputs.norms.data), status = outputs.status.data;
    const blocks = Array.from(outputs.depth.data, (depth, n) => ({ depth, status: status[n], norms: norms.splice(0, depth) }));
    return { probabilities: outputs.probabilities.data, blocks, values, milliseconds };
  }

  function show() {
    $("paper-hint").hidden = drawn;
    for (const [n, button] of [...$("images").children].entries()) button.setAttribute("aria-pressed", n === picked);
    const best = found ? found.probabilities.indexOf(Math.max(...found.probabilities)) : -1;
    [...$("classes").children].forEach((row, n) => {
      const share = found ? found.probabilities[n] : 0;
      row.className = n === best ? "best" : "";
      row.querySelector("rect").setAttribute("width", 100 * share);
      row.querySelector(".share").textContent = found ? percent(share, 1) : "";
    });
    $("answer").textContent = found ? net.classes[best] : "–";
    paint($("seen"), found ? found.values : new Float32Array(net.input_shape[0] * net.input_shape[1]), net);
    showThreshold();
    for (const id of ["norms", "depths"]) if (!found) $(id).replaceChildren();
    $("numbers").tBodies[0].replaceChildren();
    if (!found) {
      $("effort").textContent = drawn || picked !== null ? "No answer." : "Draw a digit, or pick a test image.";
      $("norms-text").textContent = $("depths-text").textContent = "Waiting for an image.";
      return;
    }
    const { blocks } = found, updates = blocks.reduce((sum, block) => sum + block.depth, 0);
    const limited = blocks.filter((block) => block.status === 1).length;
    const label = picked === null ? "" : ` The label is ${net.images[picked].label}.`;
    $("effort").textContent = `${count(updates, "update")} in ${count(blocks.length, "block")}, ${found.milliseconds.toFixed(1)} ms.${label}`;
    const still = blocks.some((block) => block.norms.some((norm) => norm <= 0));
    $("norms-text").textContent = (blocks.length === 1
      ? "The block stops at its first update below the threshold, or at its limit."
      : "One line a block. Each stops at its first update below the threshold, or at its limit.")
      + (still ? " A change of 0 is drawn at the lower edge." : "");
    $("depths-text").textContent = `At most ${net.max_unroll} updates a block. ` + (limited
      ? `${limited} of ${count(blocks.length, "block")} stopped at this limit.`
      : `${blocks.length === 1 ? "It" : `All ${blocks.length} blocks`} converged before.`);
    for (const [n, block] of blocks.entries()) {
      const row = make($("numbers").tBodies[0], "tr");
      make(row, "th", { scope: "row" }, n + 1);
      for (const text of [block.depth, STATUS[block.status], block.norms.map((norm) => short(norm)).join("  ")]) make(row, "td", {}, text);
    }
    draw();
  }

  function showThreshold() {
    const row = net.thresholds[step()];
    $("threshold-value").textContent = short(row.threshold);
    $("threshold-own").textContent = step() === own ? "as trained" : `trained with ${short(net.threshold)}`;
    $("threshold").setAttribute("aria-valuetext", short(row.threshold));
    $("accuracy").textContent = percent(row.accuracy);
    $("updates").textContent = row.updates.toFixed(1);
    $("measured").textContent = `The shares and means are of all ${net.test_images.toLocaleString("en")} test images, measured in Python when this page was made.`;
    const shares = net.thresholds.map((each) => each.accuracy);
    $("trade-text").textContent = "Each point is one position of the threshold slider, the ring is the trained one."
      + (Math.max(...shares) - Math.min(...shares) < 0.005 ? " In this network the threshold hardly changes the accuracy." : "");
    drawTrade($("trade"), net.thresholds, step(), own);
  }

  function draw() {
    if (!found) return;
    drawNorms($("norms"), found.blocks, threshold(), chosen());
    drawDepths($("depths"), found.blocks, net.max_unroll, chosen());
    $("block-choice").hidden = found.blocks.length === 1;
    $("block").max = found.blocks.length - 1;
    $("block-value").textContent = `${chosen() + 1} of ${found.blocks.length}`;
    $("block").setAttribute("aria-valuetext", $("block-value").textContent);
  }

  function use(wanted) {
    net = wanted;
    own = net.thresholds.findIndex((row) => row.threshold === net.threshold);
    $("threshold").max = net.thresholds.length - 1;
    $("threshold").value = own;
    $("images").replaceChildren();
    net.images.forEach(({ label, pixels }, n) => {
      const button = make($("images"), "button", { type: "button", "aria-label": `Test image ${n + 1}, a ${label}` });
      paint(make(button, "canvas", { "aria-hidden": "true" }), fromBase64(pixels), net);
      button.addEventListener("click", () => { clear(); picked = n; predict(); });
    });
    $("classes").replaceChildren();
    for (const name of net.classes) {
      const row = make($("classes"), "li");
      make(row, "span", {}, name);
      const bar = make(row, "svg", { viewBox: "0 0 100 12", preserveAspectRatio: "none", "aria-hidden": "true" });
      make(bar, "rect", { width: 0, height: 12, fill: "var(--accent)" });
      make(row, "span", { class: "share" });
    }
    predict();
  }

  function clear() {
    pad.fillStyle = "#000";
    pad.fillRect(0, 0, side, side);
    [drawn, picked] = [false, null];
  }

  let from = null;
  function stroke(to) {
    Object.assign(pad, { lineWidth: STROKE, lineCap: "round", lineJoin: "round", strokeStyle: "#fff" });
    pad.beginPath();
    pad.moveTo(...(from ?? to));
    pad.lineTo(...to);
    pad.stroke();
    [from, drawn, picked] = [to, true, null];
    predict();
  }
  const place = (event) => [event.offsetX, event.offsetY].map((each) => (each * side) / paper.clientWidth);
  paper.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button) return;
    if (picked !== null) clear();
    paper.setPointerCapture(event.pointerId);
    from = null;
    stroke(place(event));
  });
  paper.addEventListener("pointermove", (event) => {
    if (!event.isPrimary || !event.buttons || !from) return;
    const parts = event.getCoalescedEvents?.() ?? [];
    for (const each of parts.length ? parts : [event]) stroke(place(each));
  });
  for (const name of ["pointerup", "pointercancel"]) paper.addEventListener(name, (event) => { if (event.isPrimary) from = null; });

  // By the keyboard: a pen that is moved, lowered and lifted.
  const pen = { at: [side / 2, side / 4], down: false };
  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  function showPen(shown) {
    $("pen").hidden = !shown;
    $("pen").className = pen.down ? "down" : "";
    $("pen-said").textContent = shown ? `Pen ${pen.down ? "down" : "up"}` : "";
    [$("pen").style.left, $("pen").style.top] = pen.at.map((each) => `${(each / side) * paper.clientWidth}px`);
  }
  paper.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const move = MOVES[event.key];
    if (move) pen.at = pen.at.map((each, axis) => Math.min(Math.max(each + 10 * move[axis], 0), side));
    else if (event.key === " ") [pen.down, from] = [!pen.down, null];
    else if (event.key === "Delete" || event.key === "Backspace") { clear(); predict(); }
    else return;
    event.preventDefault();
    if (picked !== null && pen.down) clear();
    if (pen.down && event.key !== "Delete" && event.key !== "Backspace") stroke([...pen.at]);
    showPen(true);
  });
  paper.addEventListener("blur", () => { pen.down = false; showPen(false); });

  nets.forEach((each, n) => {
    const label = make($("nets"), "label");
    const radio = make(label, "input", { type: "radio", name: "net", value: each.name });
    label.append(each.title);
    radio.checked = n === 0;
    radio.addEventListener("change", () => use(each));
  });
  $("clear").addEventListener("click", () => { clear(); predict(); });
  $("threshold").addEventListener("input", predict);
  $("reset").addEventListener("click", () => { $("threshold").value = own; predict(); });
  $("block").addEventListener("input", draw);
  new ResizeObserver(() => { showThreshold(); draw(); }).observe($("trade"));
  clear();
  use(nets[0]);
}

// ---- Sums of bits ----------------------------------------------------------------------------------

function startBits(net) {
  const section = $("bits"), input = $("bits-input"), table = $("travel");
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let newest = 0;

  function addRow(name, values, attributesOf) {
    const row = make(table.tBodies[0], "tr");
    make(row, "th", { scope: "row" }, name);
    values.forEach((value, n) => make(row, "td", attributesOf(value, n), value));
  }

  function addHead(bits) {
    const row = make(table.tHead, "tr", { class: "bits" });
    make(row, "th", { scope: "row" }, "bits");
    for (const bit of bits) make(row, "th", { class: "bit", scope: "col" }, bit);
  }

  async function compute(bits) {
    const mine = ++newest, values = Float32Array.from(bits), dims = [1, bits.length, 1, 1];
    const exact = bits.map((_, n) => bits.slice(0, n + 1).reduce((sum, bit) => sum + bit, 0) % 2);
    const parity = (value, n) => {
      const name = value ? "odd" : "even";
      return value === exact[n] ? { class: name } : { class: `${name} wrong`, "aria-label": `${value}, not right yet` };
    };
    const after = async (most) => {
      const { logits, depth } = await run(net, dims, values, net.threshold, most);
      return { prediction: bits.map((_, n) => Number(logits.data[2 * n + 1] > logits.data[2 * n])), depth: depth.data[0] };
    };
    section.setAttribute("aria-busy", "true");
    try {
      await fill(bits, after, exact, parity, () => mine === newest);
      if (mine === newest) succeed("bits");
    } catch (error) {
      if (mine === newest) fail("bits", error);
    } finally {
      if (mine === newest) section.setAttribute("aria-busy", "false");
    }
  }

  // Fills the table while no newer input has come.
  async function fill(bits, after, exact, parity, isNewest) {
    const { prediction, depth } = await after(net.max_unroll);
    if (!isNewest()) return;
    const wrong = prediction.filter((value, n) => value !== exact[n]).length;
    const end = depth < net.max_unroll ? "Converged" : "Stopped at the limit";
    const judged = wrong ? `wrong at ${wrong} of ${count(bits.length, "position")}` : `right at ${bits.length === 1 ? "its one position" : `all ${bits.length} positions`}`;
    $("bits-answer").textContent = `${end} after ${count(depth, "update")}, ${judged}.` + (depth > MOST_ROWS ? ` The first ${MOST_ROWS} are shown.` : "");
    table.tHead.replaceChildren();
    table.tBodies[0].replaceChildren();
    addHead(bits);
    for (let k = 1; k <= Math.min(depth, MOST_ROWS); k++) {
      const reached = k === depth ? prediction : (await after(k)).prediction;
      if (!still.matches) await new Promise((resolve) => setTimeout(resolve, 45));
      if (!isNewest()) return;
      addRow(k, reached, parity);
    }
  }

  function submit() {
    const text = input.value.replace(/\s/g, "");
    const fits = /^[01]+$/.test(text);
    $("bits-error").textContent = fits ? "" : "Type ones and zeros only, at least one of them.";
    input.setAttribute("aria-invalid", String(!fits));
    if (fits) compute([...text].map(Number));
  }

  $("bits-form").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  for (const button of document.querySelectorAll("[data-random]")) {
    button.addEventListener("click", () => {
      input.value = Array.from({ length: button.dataset.random }, () => Number(Math.random() < 0.5)).join("");
      submit();
    });
  }
  input.value = "110100101101001011010010";
  submit();
}

// ---- Start -----------------------------------------------------------------------------------------

// By the part of the page. The next success of a part takes its message away.
const failures = new Map();

function fail(part, error) {
  failures.set(part, `This did not work: ${error.message}`);
  console.error(error);
  tell();
}

function succeed(part) {
  failures.delete(part);
  tell();
}

function tell() {
  $("loading").hidden = !failures.size;
  $("loading").className = "failure";
  $("loading").textContent = [...new Set(failures.values())].join(" ");
}

async function start() {
  const facts = await (await load("demo.json")).json();
  ort.env.wasm.numThreads = 1; // Threads need headers that a static server does not send.
  ort.env.wasm.wasmBinary = await (await load("runtime/ort-wasm-simd-threaded.wasm")).arrayBuffer();
  $("version").textContent = facts.version;
  // The first session starts the runtime. A part that fails says so, and tries again.
  await open(facts.digits[0]).catch(() => {});
  startDigits(facts.digits);
  startBits(facts.sequences);
}

start().catch((error) => fail("page", error));
