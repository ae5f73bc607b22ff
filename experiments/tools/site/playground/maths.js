// What `jattn.attend` computes, for one head and few tokens; and how a call says it in Python.
// A mask is {allowed(i, j), tiles(rows, columns), code}; rows and columns are [first, last].
const EMPTY = 0, PARTIAL = 1, FULL = 2;
const number = (x) => (Number.isInteger(x) ? `${x}.0` : String(x));
const summary = (some, every) => (every ? FULL : some ? PARTIAL : EMPTY);

// Keys j with low <= j - i <= high.
const band = (low, high, code) => ({
  allowed: (i, j) => j - i >= low && j - i <= high,
  tiles: ([a, b], [c, d]) => summary(d - a >= low && c - b <= high, c - b >= low && d - a <= high),
  code,
});
const prefix = (length) => ({
  allowed: (i, j) => j < length,
  tiles: (rows, [c, d]) => summary(c < length, d < length),
  code: `jattn.masks.prefix(${length})`,
});
// Tokens of one segment; `of` gives its number, which never falls.
const segments = (of, code) => ({
  allowed: (i, j) => of(i) === of(j),
  tiles: ([a, b], [c, d]) => {
    const meet = of(a) <= of(d) && of(c) <= of(b);
    return summary(meet, meet && of(a) === of(b) && of(c) === of(d));
  },
  code,
});
// Each token sees `window` of those that are equal modulo the dilation; shifted at the ends.
const neighborhood = (n, window, dilation) => {
  const reach = [...Array(n).keys()].map((i) => {
    const last = Math.floor((n - (i % dilation) + dilation - 1) / dilation) - 1;
    const left = Math.floor(window / 2), right = window - left - 1;
    const centre = Math.min(Math.max(Math.floor(i / dilation), left), last - right);
    return [centre - left, centre + right].map((place) => place * dilation + (i % dilation));
  });
  return {
    allowed: (i, j) => j % dilation === i % dilation && j >= reach[i][0] && j <= reach[i][1],
    tiles: ([a, b], [c, d]) => {
      const own = reach.slice(a, b + 1);
      const least = (k) => Math.min(...own.map((r) => r[k])), most = (k) => Math.max(...own.map((r) => r[k]));
      return summary(most(1) >= c && least(0) <= d, dilation === 1 && most(0) <= c && least(1) >= d);
    },
    code: `jattn.masks.neighborhood((${n},), ${window}${dilation > 1 ? `, dilation=${dilation}` : ""})`,
  };
};
const both = (x, y) => ({
  allowed: (i, j) => x.allowed(i, j) && y.allowed(i, j),
  tiles: (...tile) => Math.min(x.tiles(...tile), y.tiles(...tile)),
  code: `${x.code} & ${y.code}`,
});
const either = (x, y) => ({
  allowed: (i, j) => x.allowed(i, j) || y.allowed(i, j),
  tiles: (...tile) => Math.max(x.tiles(...tile), y.tiles(...tile)),
  code: `${x.code} | ${y.code}`,
});

// Documents of growing lengths: document d ends before token n ((d + 1) / count)^1.5.
const documentsOf = (n, count) => {
  const ends = [...Array(count).keys()].map((d) => Math.floor(n * ((d + 1) / count) ** 1.5));
  ends[count - 1] = n;
  return [...Array(n).keys()].map((i) => ends.findIndex((end) => i < end));
};

function maskOf(s) {
  const causal = band(-Infinity, 0, "jattn.masks.causal()");
  const made = {
    everyone: () => null,
    causal: () => band(-Infinity, s.offset, `jattn.masks.causal(${s.offset || ""})`),
    window: () => band(1 - s.left, s.right, `jattn.masks.sliding_window(${s.left}, ${s.right})`),
    blocks: () => segments((i) => Math.floor(i / s.size), `jattn.masks.block_diagonal(${s.size})`),
    documents: () => {
      const ids = documentsOf(s.tokens, s.documents);
      return segments((i) => ids[i], "jattn.masks.segments(ids, ids)");
    },
    neighborhood: () => neighborhood(s.tokens, s.window, s.dilation),
  };
  let mask = made[s.mask]();
  if (s.also) mask = mask ? both(mask, causal) : causal;
  if (s.prefix) mask = mask ? either(mask, prefix(s.prefix)) : null;
  return mask;
}
// What of the table says it: a mask that others make up counts as one of them.
const maskKind = (s) => {
  if (s.mask === "everyone") return s.also ? (s.prefix ? "combined" : "causal") : "everyone";
  return s.also || s.prefix ? "combined" : s.mask;
};

const MODIFICATIONS = {
  none: { change: (x) => x, code: () => null, text: (x) => x },
  soft_cap: {
    change: (x, i, j, p) => p * Math.tanh(x / p),
    code: (p) => `jattn.attention.scores.soft_cap(${number(p)})`,
    text: (x, p) => `${p} tanh(${x} / ${p})`,
  },
  temperature: {
    change: (x, i, j, p) => x / p,
    code: (p) => `jattn.attention.scores.temperature(${number(p)})`,
    text: (x, p) => `${x} / ${p}`,
  },
  alibi: {
    change: (x, i, j, p) => x - p * Math.abs(i - j),
    code: (p, n, plain) => `jattn.attention.scores.alibi(jnp.array([${number(p)}])${plain})`,
    text: (x, p) => `${x} − ${p} |i − j|`,
  },
  decay: {
    change: (x, i, j, p) => x - p * (i - j),
    code: (p, n, plain) => `jattn.attention.scores.decay(jnp.full((1, ${n}, 1), ${number(-p)})${plain})`,
    text: (x, p) => `${x} − ${p} (i − j)`,
  },
};
const NORMALIZERS = {
  softmax: { f: Math.exp, divide: true, text: "exp" },
  sigmoid: { f: (x) => 1 / (1 + Math.exp(-x)), divide: false, text: "sigmoid" },
  softplus_l1: { f: (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))), divide: true, text: "softplus" },
  relu: { f: (x) => Math.max(x, 0), divide: true, text: "relu" },
};

// Queries and keys that Python can make, too: multiples of 1/64 from a linear congruence. The second
// half of the tokens repeats the first.
const DIM = 8;
function tokens(n) {
  let state = 7;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return ((state >>> 24) - 128) / 64;
  };
  const half = [...Array(Math.ceil(n / 2))].map(() => [...Array(DIM)].map(next));
  const noise = half.map((row) => row.map(() => next() / 2));
  const rows = [...Array(n).keys()].map((i) => i % half.length);
  return { query: rows.map((i) => half[i].map((x, d) => x + noise[i][d])), key: rows.map((i) => half[i]) };
}

function compute(s) {
  const n = s.tokens, mask = maskOf(s);
  const { query, key } = tokens(n);
  const mod = MODIFICATIONS[s.mod], normalizer = NORMALIZERS[s.normalizer];
  const allowed = (i, j) => !mask || mask.allowed(i, j);
  const scores = query.map((q, i) => key.map((k, j) => {
    const product = q.reduce((sum, x, d) => sum + x * k[d], 0) / Math.sqrt(DIM);
    return mod.change(product, i, j, s.strength);
  }));
  const weights = scores.map((row, i) => {
    const seen = row.filter((_, j) => allowed(i, j));
    const exponential = s.normalizer === "softmax";
    const most = exponential ? Math.max(...seen, ...(s.sink ? [0] : [])) : 0;
    const f = (x) => normalizer.f(x - most);
    const total = seen.reduce((sum, x) => sum + f(x), s.sink ? f(0) : 0);
    const by = normalizer.divide ? total : 1;
    return row.map((x, j) => (allowed(i, j) && by > 0 ? f(x) / by : 0));
  });
  const tiles = [];
  for (let a = 0; a < n; a += s.tile) {
    const rows = [a, a + s.tile - 1];
    tiles.push([]);
    for (let c = 0; c < n; c += s.tile) tiles.at(-1).push(mask ? mask.tiles(rows, [c, c + s.tile - 1]) : FULL);
  }
  const flat = tiles.flat();
  const visible = scores.map((row, i) => row.map((_, j) => +allowed(i, j)));
  return {
    scores, weights, tiles, visible,
    visited: flat.filter((x) => x !== EMPTY).length / flat.length,
    pairs: visible.flat().reduce((sum, x) => sum + x, 0) / (n * n),
    code: codeOf(s, mask), choices: choicesOf(s),
  };
}

function codeOf(s, mask) {
  // Else positions are counted from the mask's offset.
  const plain = s.mask === "causal" && s.offset ? ", offset=0" : "";
  const mod = MODIFICATIONS[s.mod].code(s.strength, s.tokens, plain);
  const lines = [];
  if (s.mask === "documents") {
    lines.push(`ids = np.array([[${documentsOf(s.tokens, s.documents).join(", ")}]])`);
  }
  if (mask) lines.push(`mask = ${mask.code}`);
  if (mod) lines.push(`score_mod = ${mod}`);
  const given = [mask && "mask=mask", mod && "score_mod=score_mod",
    s.normalizer !== "softmax" && `normalizer="${s.normalizer}"`, s.sink && "sink=0.0"].filter(Boolean);
  lines.push(`out = jattn.attend(${["query, key, value", ...given].join(", ")})`);
  return lines.join("\n");
}

function choicesOf(s) {
  const key = [maskKind(s), s.mod, s.normalizer, s.sink ? "sink" : "", s.at].join("|");
  return TABLE.platforms.map((platform, p) => ({ platform, ...TABLE.distinct[TABLE.index[key][p]] }));
}

function equationOf(s) {
  const inner = MODIFICATIONS[s.mod].text("qᵢ·kⱼ / √d", s.strength);
  const f = NORMALIZERS[s.normalizer];
  const weight = `${f.text}(${inner})`;
  const over = { everyone: "all j", causal: s.offset ? `j ≤ i + ${s.offset}` : "j ≤ i",
    window: `i − ${s.left} < j ≤ i${s.right ? ` + ${s.right}` : ""}`, blocks: `⌊j / ${s.size}⌋ = ⌊i / ${s.size}⌋`,
    documents: "j of i's document", neighborhood: `j of the ${s.window} neighbours of i` }[s.mask];
  const parts = s.mask === "everyone" && s.also ? "j ≤ i" : over + (s.also ? ", j ≤ i" : "");
  const where = s.prefix && (s.mask !== "everyone" || s.also) ? `${parts}, or j < ${s.prefix}` : parts;
  const sink = s.sink ? ` + ${f.text}(0)` : "";
  return [
    `wᵢⱼ = ${weight}`,
    f.divide ? `oᵢ = Σⱼ wᵢⱼ vⱼ / (Σⱼ wᵢⱼ${sink})` : "oᵢ = Σⱼ wᵢⱼ vⱼ",
    `over ${where}`,
  ];
}
window.playground = { compute, equationOf };
