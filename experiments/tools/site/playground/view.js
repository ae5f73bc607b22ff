// Draws what is chosen; the choice is in the address, so that it can be kept and sent.
const form = document.getElementById("settings"), root = document.documentElement;
const field = (name) => form.elements[name];
const at = (id) => document.getElementById(id);
for (const length of TABLE.lengths) field("at").add(new Option(`${length} tokens`, length, false, length > 1000));
const DEFAULT_STRENGTH = { none: 1, soft_cap: 2, temperature: 2, alibi: 0.25, decay: 0.1 };

function settings() {
  const found = {};
  for (const input of form.elements) {
    if (!input.name) continue;
    const words = ["mask", "mod", "normalizer"].includes(input.name);
    found[input.name] = input.type === "checkbox" ? input.checked : words ? input.value : +input.value;
  }
  found.sink &&= NORMALIZERS[found.normalizer].divide;
  // Windows that do not fit are cut.
  found.window = Math.min(found.window, Math.floor(found.tokens / found.dilation));
  return found;
}

function drawn(id, n, colour) {
  const canvas = at(id), scale = Math.max(1, Math.round(384 / n));
  canvas.width = canvas.height = n * scale;
  const context = canvas.getContext("2d");
  for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) {
    context.fillStyle = colour(i, j);
    context.fillRect(j * scale, i * scale, scale, scale);
  }
  return [context, scale];
}

let last;
function show() {
  const s = settings(), r = compute(s), n = s.tokens;
  last = { s, r };
  const style = getComputedStyle(root), colour = (name) => style.getPropertyValue(name).trim();
  const ink = colour("--ink"), warm = colour("--warm"), none = colour("--none"), back = colour("--back");
  for (const label of form.querySelectorAll("[data-for]")) label.hidden = label.dataset.for !== s.mask;
  for (const label of form.querySelectorAll("[data-for]")) label.style.display = label.hidden ? "none" : "";
  field("sink").disabled = !NORMALIZERS[s.normalizer].divide;
  form.querySelector("[data-mod]").style.display = s.mod === "none" ? "none" : "";
  for (const output of form.querySelectorAll("output")) output.value = output.parentElement.querySelector("input").value;
  const largest = Math.max(1e-9, ...r.scores.flat().map(Math.abs));
  drawn("scores", n, (i, j) => {
    const x = r.scores[i][j] / largest;
    return r.visible[i][j] ? `rgba(${x < 0 ? warm : ink}, ${Math.abs(x).toFixed(3)})` : none;
  });
  const most = Math.max(1e-9, ...r.weights.flat());
  drawn("weights", n, (i, j) => r.visible[i][j] ? `rgba(${ink}, ${Math.sqrt(r.weights[i][j] / most).toFixed(3)})` : none);
  const fill = { [FULL]: `rgb(${ink})`, [PARTIAL]: `rgba(${ink}, .38)`, [EMPTY]: none };
  const count = r.tiles.length, [context, scale] = drawn("tiles", count, (a, c) => fill[r.tiles[a][c]]);
  context.strokeStyle = back; context.lineWidth = 2;
  for (let a = 0; a <= count; a++) {
    context.strokeRect(a * scale, -2, 0, count * scale + 4); context.strokeRect(-2, a * scale, count * scale + 4, 0);
  }
  const percent = (x) => `${(100 * x).toFixed(x < 0.1 ? 1 : 0)} %`;
  at("visited").textContent = percent(r.visited); at("pairs").textContent = percent(r.pairs);
  at("equation").replaceChildren(...equationOf(s).map((text) => Object.assign(document.createElement("p"), { className: "equation", textContent: text })));
  at("code").textContent = r.code;
  at("choices").replaceChildren(...r.choices.map(rowOf));
  if (location.protocol !== "about:") history.replaceState(null, "", `#${new URLSearchParams(s)}`);
}

function rowOf({ platform, chosen, refused }) {
  const row = document.createElement("tr"), name = document.createElement("th"), cell = document.createElement("td");
  name.textContent = platform;
  const picked = document.createElement("b"); picked.textContent = chosen;
  const more = document.createElement("details"), title = document.createElement("summary");
  title.textContent = "why not another";
  more.append(title, ...Object.entries(refused).map(([other, why]) => Object.assign(document.createElement("div"), { textContent: `${other}: ${why}` })));
  cell.append(picked, more); row.append(name, cell);
  return row;
}

for (const id of ["scores", "weights"]) {
  at(id).addEventListener("pointermove", (event) => {
    const box = event.target.getBoundingClientRect(), { s, r } = last;
    const place = (x, size) => Math.min(s.tokens - 1, Math.max(0, Math.floor(x / size * s.tokens)));
    const i = place(event.clientY - box.top, box.height), j = place(event.clientX - box.left, box.width);
    at("cell").textContent = r.visible[i][j]
      ? `query ${i}, key ${j}: score ${r.scores[i][j].toFixed(3)}, weight ${r.weights[i][j].toFixed(4)}`
      : `query ${i} does not see key ${j}`;
  });
}
at("copy").addEventListener("click", () => navigator.clipboard?.writeText(at("code").textContent));
at("theme").addEventListener("click", () => { root.className = root.className === "dark" ? "light" : "dark"; show(); });
field("mod").addEventListener("change", () => { field("strength").value = DEFAULT_STRENGTH[field("mod").value]; show(); });
form.addEventListener("input", show);
// In a frame of the site the theme is the site's.
let frame = null;
try { frame = window.parent !== window ? window.parent.document.documentElement : null; } catch { /* another origin */ }
const followed = () => { root.className = frame?.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"); show(); };
if (frame?.dataset.theme) { at("theme").hidden = true; new MutationObserver(followed).observe(frame, { attributeFilter: ["data-theme"] }); }
for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
  const input = field(name);
  if (!input) continue;
  if (input.type === "checkbox") input.checked = value === "true"; else input.value = value;
}
followed();
