'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const $ = id => document.getElementById(id);
const ROW = 20, LANE = 34, HEAD = 22;
const name = n => n < 0 ? 'test' : data.nodes[n];
const end = Math.max(data.took, data.lines.length ? data.lines[data.lines.length - 1][0] : 0, 0.001);

// The log: only the rows that are seen are elements.
const log = $('log'), spacer = document.createElement('div');
log.append(spacer);
let shown = [], here = -1, words = [];
const lower = data.lines.map(line => line[3].toLowerCase());
data.nodes.forEach((node, n) => $('node').append(new Option(node, n)));
$('node').append(new Option('the test itself', -1));
function filter() {
  const node = $('node').value, source = $('source').value, only = $('only').checked;
  words = $('search').value.toLowerCase().split(/\s+/).filter(Boolean);
  shown = [];
  for (let i = 0; i < data.lines.length; i++) {
    const line = data.lines[i];
    if (node !== '' && line[1] !== +node) continue;
    if (source !== '' && line[2] !== +source) continue;
    if (only && !line[4]) continue;
    if (words.length && !words.every(word => lower[i].includes(word))) continue;
    shown.push(i);
  }
  $('count').textContent = shown.length + ' of ' + data.lines.length;
  $('none').hidden = shown.length > 0;
  spacer.style.height = shown.length * ROW + 'px';
  // What one was looking at stays in sight.
  const at = shown.indexOf(here);
  log.scrollTop = at < 0 ? 0 : Math.max(0, at * ROW - log.clientHeight / 2);
  rows();
}
// The text, with the words that are searched for marked.
function marked(row, text) {
  const low = text.toLowerCase();
  // A few letters change their length: their lines are shown as they are.
  const at = low.length === text.length ? words.flatMap(word => places(low, word)).sort((a, b) => a[0] - b[0]) : [];
  let done = 0;
  for (const [from, to] of at) {
    if (to <= done) continue;
    const hit = document.createElement('mark');
    hit.textContent = text.slice(Math.max(from, done), to);
    row.append(text.slice(done, Math.max(from, done)), hit);
    done = to;
  }
  row.append(text.slice(done));
}
function places(text, word) {
  const found = [];
  for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + word.length)) found.push([at, at + word.length]);
  return found;
}
const width = Math.max(4, ...data.nodes.map(node => node.length));
function rows() {
  const first = Math.max(0, Math.floor(log.scrollTop / ROW) - 5);
  const last = Math.min(shown.length, first + Math.ceil(log.clientHeight / ROW) + 10);
  const parts = [spacer];
  for (let i = first; i < last; i++) {
    const [at, node, source, text, bad] = data.lines[shown[i]];
    const row = document.createElement('div');
    row.className = 'row' + (bad ? ' bad' : '') + (source ? '' : ' event') + (shown[i] === here ? ' here' : '');
    row.style.top = i * ROW + 'px';
    row.append(at.toFixed(3).padStart(9) + '  ' + name(node).padEnd(width) + '  ');
    marked(row, text.replace(/\n/g, ' ⏎ '));
    row.title = text;
    parts.push(row);
  }
  log.replaceChildren(...parts);
}
function go(at) {
  let best = -1;
  for (let i = 0; i < shown.length; i++) {
    const line = data.lines[shown[i]];
    if (best < 0 || Math.abs(line[0] - at) < Math.abs(data.lines[shown[best]][0] - at)
      || (Math.abs(line[0] - at) < 0.001 && line[4] && !data.lines[shown[best]][4])) best = i;
  }
  if (best < 0) return;
  here = shown[best];
  log.scrollTop = Math.max(0, best * ROW - log.clientHeight / 2);
  rows();
}
log.addEventListener('scroll', () => requestAnimationFrame(rows));
for (const id of ['node', 'source', 'only']) $(id).addEventListener('change', filter);
$('search').addEventListener('input', filter);

// The lanes: one for the test, one for each node.
const canvas = $('lanes'), g = canvas.getContext('2d');
let from = 0, to = end;
const colours = { state: '#8e99a8', command: '#3b82c4', process: '#7a63c9', copy: '#2a9d8f', wait: '#d8902f', power: '#b5478f' };
const states = { booting: '#d8902f', running: '#3aa76d', paused: '#8e99a8', off: '#c4243b', removed: '#555' };
const lane = n => HEAD + (n + 1) * LANE;
function draw() {
  const scale = devicePixelRatio || 1, w = canvas.clientWidth, h = HEAD + (data.nodes.length + 1) * LANE + 4;
  canvas.style.height = h + 'px';
  canvas.width = w * scale; canvas.height = h * scale;
  g.setTransform(scale, 0, 0, scale, 0, 0);
  const fg = getComputedStyle(document.body).color;
  const left = Math.min(110, w / 4), x = at => left + (at - from) / (to - from) * (w - left - 4);
  g.font = '12px system-ui, sans-serif'; g.fillStyle = fg; g.textBaseline = 'middle';
  const step = 10 ** Math.floor(Math.log10((to - from) / 2)), ticks = (to - from) / step > 6 ? step * 2 : step;
  for (let t = Math.ceil(from / ticks) * ticks; t <= to; t += ticks) {
    g.globalAlpha = .25; g.fillRect(x(t), HEAD - 4, 1, h); g.globalAlpha = 1;
    g.fillText(+t.toFixed(6) + ' s', x(t) + 3, 9);
  }
  for (let n = -1; n < data.nodes.length; n++) g.fillText(name(n).slice(0, 16), 2, lane(n) + LANE / 2);
  g.save(); g.beginPath(); g.rect(left, 0, w - left, h); g.clip();
  const last = {};
  for (const [node, a, b, kind, what, bad] of data.spans) {
    const z = b ?? end;
    if (z < from || a > to) continue;
    const l = x(a), r = Math.max(x(z), l + 1.5), state = kind === 'state';
    // What would cover the same point again is not drawn.
    const key = node + kind + bad;
    if (!state && r - l < 2 && last[key] > l) continue;
    last[key] = r;
    g.fillStyle = bad ? '#c4243b' : state ? states[what] || colours.state : colours[kind] || colours.state;
    g.globalAlpha = state ? .35 : .9;
    g.fillRect(l, lane(node) + (state ? 2 : 10), r - l, state ? LANE - 4 : LANE - 18);
    g.globalAlpha = 1;
    if (!state && r - l > 50) { g.save(); g.beginPath(); g.rect(l, 0, r - l, h); g.clip(); g.fillStyle = '#fff'; g.fillText(what, l + 4, lane(node) + LANE / 2 + 1); g.restore(); }
  }
  for (const [node, at, kind] of data.marks) {
    if (at < from || at > to) continue;
    g.fillStyle = kind === 'anomaly' ? '#e0001b' : fg;
    const anomaly = kind === 'anomaly';
    g.fillRect(x(at) - (anomaly ? 1.5 : .5), lane(node) + 2, anomaly ? 3 : 1, LANE - 4);
    if (anomaly) { g.beginPath(); g.arc(x(at), lane(node) + 5, 5, 0, 7); g.fill(); }
  }
  if (here >= 0) { g.fillStyle = fg; g.globalAlpha = .7; g.fillRect(x(data.lines[here][0]), 0, 1, h); g.globalAlpha = 1; }
  g.restore();
  $('range').textContent = from.toFixed(3) + ' s to ' + to.toFixed(3) + ' s';
  canvas.at = px => from + (px - left) / (w - left - 4) * (to - from);
}
function zoom(factor, around = here >= 0 ? data.lines[here][0] : (from + to) / 2) {
  const size = Math.min(end, Math.max((to - from) * factor, end / 1e5));
  from = Math.max(0, Math.min(end - size, around - (around - from) * size / (to - from))); to = from + size;
  draw();
}
$('in').onclick = () => zoom(.5); $('out').onclick = () => zoom(2);
$('all').onclick = () => { from = 0; to = end; draw(); };
canvas.addEventListener('wheel', e => { if (e.ctrlKey || e.shiftKey) { e.preventDefault(); zoom(e.deltaY > 0 ? 1.25 : .8, canvas.at(e.offsetX)); } }, { passive: false });
let grabbed = null;
canvas.addEventListener('pointerdown', e => { grabbed = { x: e.offsetX, from, to, moved: false }; });
addEventListener('pointerup', () => { grabbed = null; });
canvas.addEventListener('pointermove', e => {
  if (grabbed) {
    const by = (grabbed.x - e.offsetX) / canvas.clientWidth * (to - from), size = to - from;
    if (Math.abs(grabbed.x - e.offsetX) > 3) grabbed.moved = canvas.dragged = true;
    from = Math.max(0, Math.min(end - size, grabbed.from + by)); to = from + size;
    return draw();
  }
  const at = canvas.at(e.offsetX), node = Math.floor((e.offsetY - HEAD) / LANE) - 1;
  const under = data.spans.filter(s => s[0] === node && s[1] <= at && (s[2] ?? end) >= at).map(s => s[3] + ' ' + s[4]);
  $('hover').textContent = at.toFixed(3) + ' s  ' + under.slice(-3).join(' · ').slice(0, 200);
});
canvas.addEventListener('click', e => { if (canvas.dragged) canvas.dragged = false; else { go(canvas.at(e.offsetX)); draw(); } });
addEventListener('resize', () => { draw(); rows(); });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);

filter();
const first = data.first && typeof data.first.at === 'number' ? data.first.at : null;
if ($('jump')) $('jump').onclick = () => {
  // It may be hidden by what is shown now.
  $('node').value = $('source').value = $('search').value = ''; $('only').checked = false;
  filter(); go(first); draw(); log.scrollIntoView({ block: 'nearest' });
};
if (data.failed) go(first ?? end);
draw();
document.body.dataset.drawn = Math.round(performance.now());
