
'use strict';
// The page of healthgptd: forms out, lines of JSON in (docs/streaming.md). No framework, no other origin, nothing stored.
// Paths are relative, so that a proxy may serve it all under a prefix.
const MAX_FILES = 4, MAX_RESULTS = 12, PREVIEWS = 8;
const TASKS = {
  ask: {
    name: 'comprehension', path: 'v1/vqa', field: 'question', label: 'Question', button: 'Ask', title: 'Question',
    hint: 'What would you like to know?',
    examples: ['What is shown in this image?', 'Is there evidence of pneumonia?'],
  },
  draw: {
    name: 'generation', path: 'v1/draw', field: 'prompt', label: 'Instruction', button: 'Make', title: 'Image',
    hint: 'Which image should be made? An image above is worked on.',
    examples: ['Draw a chest X-ray with pneumonia.', 'Draw a chest X-ray.', 'Reconstruct the image.'],
  },
};
const $ = id => document.getElementById(id);
let files = []; // {blob, name, url} of the request that is being written
let running = null; // its AbortController

// An element with properties, attributes and children; text never becomes markup.
function el(tag, props, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(props || {})) {
    if (k in e) e[k] = v;
    else e.setAttribute(k, v);
  }
  e.append(...children.filter(c => c != null));
  return e;
}
const say = text => { $('say').textContent = text; };
const seconds = s => s >= 90 ? Math.round(s / 60) + ' min' : s >= 10 ? Math.round(s) + ' s' : s.toFixed(1) + ' s';
const task = () => document.querySelector('[name=task]:checked').value;

// ---- what went wrong, in plain words ------------------------------------------------------------------------------

class Trouble extends Error {
  constructor(status, error, wait) {
    super(error.message || '');
    Object.assign(this, {status, code: error.code || '', param: error.param || '', wait});
  }
}

// What it means, and what to do.
function plainly(t) {
  const wait = t.wait > 0 ? 'Try again in ' + seconds(t.wait) + '.' : 'Try again in a moment.';
  const operator = 'If it happens again, tell the person who runs this server.';
  switch (t.code) {
  case 'no_connection': return ['The server cannot be reached.', 'Check the network, and that healthgptd is running; then try again.'];
  case 'not_understood': return ['This page did not understand the server.', 'Reload it: the server may be of another version. ' + operator];
  case 'cut_short': return ['The connection ended too early.', 'What is shown is not complete. Try again.'];
  case 'missing_api_key': return ['This server asks for an API key.', 'Type it into the field "API key" and send again.'];
  case 'invalid_api_key': return ['The server does not know this API key.', 'Check it for missing characters, or ask for a new one.'];
  case 'not_allowed': return ['This API key may only read.', 'Ask for one that may send requests.'];
  case 'invalid_image': return ['An image cannot be read.', 'Take a PNG or JPEG that opens in an image viewer. A DICOM file has to be exported first.'];
  case 'image_too_large': case 'body_too_large': case 'too_large': case 'text_too_long':
    return ['The request is too large.', 'Send a smaller image, fewer of them, or a shorter text.'];
  case 'rate_limit_exceeded': return ['This API key has reached its limit.', wait];
  case 'queue_full': return ['The server is busy.', wait + ' Others are being served.'];
  case 'loading': return ['The server is still loading the model.', wait];
  case 'shutting_down': return ['The server is shutting down or starting again.', wait];
  case 'deadline_exceeded': return ['It took longer than this server allows.', 'Try again when the server is less busy.'];
  case 'numeric_fault': return ['The model computed something that is not a number.', 'Other requests are not affected. Try again. ' + operator];
  case 'out_of_memory': return ['The server has no memory left for this.', wait + ' ' + operator];
  }
  if (t.status === 401) return ['The API key was not accepted.', 'Check it and send again.'];
  if (t.status === 429 || t.status === 503) return ['The server cannot take this now.', wait];
  if (t.status >= 500) return ['The server has failed.', 'Try again. ' + operator];
  return ['The server did not accept this.', t.param ? 'Change what is named below and send again.' : 'Change the request and send again.'];
}

// ---- the server --------------------------------------------------------------------------------------------------------

const auth = () => $('key').value.trim() ? {Authorization: 'Bearer ' + $('key').value.trim()} : {};

async function call(path, options) {
  let r;
  try {
    r = await fetch(path, {cache: 'no-store', redirect: 'error', headers: auth(), ...options});
  } catch (e) {
    if (e.name === 'AbortError') throw e;
    throw new Trouble(0, {code: 'no_connection'});
  }
  if (r.ok || path === 'health') return r;
  let body = {};
  try { body = await r.json(); } catch (e) { /* a proxy's own page: the status has to do */ }
  if (r.status === 401) $('key-field').hidden = false;
  throw new Trouble(r.status, body.error || {message: 'HTTP status ' + r.status}, Number(r.headers.get('Retry-After')));
}

// The lines of a stream, each as soon as it is whole.
async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let parts = [];
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (e) {
      if (e.name === 'AbortError') throw e;
      break;
    }
    if (piece.done) break;
    const ends = piece.value.split('\n');
    while (ends.length > 1) {
      const line = parts.join('') + ends.shift();
      parts = [];
      if (line) yield JSON.parse(line);
    }
    parts.push(ends[0]);
  }
  throw new Trouble(200, {code: 'cut_short'}); // who has seen "done" does not come here
}

async function look() {
  const dot = (state, text) => { $('health').dataset.state = state; $('health').textContent = text; };
  try {
    const h = await (await call('health')).json();
    if (h.error) { dot('wait', h.error.code === 'loading' ? 'loading the model' : 'not ready'); return; }
    const waiting = h.queue.depth;
    $('facts').textContent = h.model + ' on ' + h.backend;
    $('card').textContent = h.notice;
    for (const [id, t] of Object.entries(TASKS)) {
      const radio = document.querySelector('[value=' + id + ']');
      radio.disabled = !h.tasks.includes(t.name);
      radio.parentNode.title = radio.disabled ? 'This model has no plug-in for it' : '';
      if (radio.disabled && radio.checked) document.querySelector('[name=task]:not([value=' + id + '])').click();
    }
    if (h.status === 'ok') dot('ok', waiting ? 'busy, ' + waiting + ' waiting' : h.queue.running ? 'working' : 'ready');
    else dot('bad', h.status === 'draining' ? 'shutting down' : 'not ready');
  } catch (e) {
    dot('bad', 'not reachable');
  }
}

// ---- images of the request ---------------------------------------------------------------------------------------------

function showFiles() {
  $('thumbs').replaceChildren(...files.map((f, i) => el('li', {},
    el('img', {src: f.url, alt: f.name}),
    el('button', {type: 'button', textContent: '\u00d7', 'aria-label': 'Remove ' + f.name, onclick: () => {
      files.splice(i, 1);
      showFiles();
      say(f.name + ' removed');
      $('files').focus();
    }}))));
  $('drop').hidden = files.length >= MAX_FILES;
}

async function addFiles(list) {
  let wrong = '';
  for (const blob of list) {
    const name = blob.name || 'image';
    if (files.length >= MAX_FILES) { wrong = 'At most ' + MAX_FILES + ' images go into a request.'; break; }
    const url = URL.createObjectURL(blob), img = new Image();
    img.src = url;
    const opens = /^image\/(png|jpeg)$/.test(blob.type) && await img.decode().then(() => true, () => false);
    if (opens && files.length < MAX_FILES) files.push({blob, name, url});
    else { URL.revokeObjectURL(url); wrong = name + ' is not a PNG or JPEG that can be shown. Export it as PNG first (DICOM too).'; }
  }
  $('files-error').textContent = wrong;
  if (!wrong) say(files.length + (files.length === 1 ? ' image' : ' images') + ' attached');
  showFiles();
}

// ---- a request ------------------------------------------------------------------------------------------------------------

// All that is sent, as pairs: the form and the curl line are made from it. Files go without their names.
function compose() {
  const kind = task(), t = TASKS[kind], fields = [[t.field, $('prompt').value.trim()]];
  for (const name of kind === 'ask' ? ['seed', 'temperature', 'max_tokens'] : ['seed', 'temperature'])
    if ($(name).value.trim()) fields.push([name, $(name).value.trim()]);
  if (kind === 'draw') fields.push(['previews', String(PREVIEWS)]);
  fields.push(['stream', 'true']);
  return {kind, ...t, text: $('prompt').value.trim(), fields, files: [...files]};
}

function curlOf(q) {
  const shell = s => "'" + s.replaceAll("'", "'\\''") + "'";
  const parts = ['curl -sN ' + new URL(q.path, location.href).href];
  if (auth().Authorization) parts.push('-H "Authorization: Bearer $HEALTHGPT_API_KEY"');
  for (const f of q.files) parts.push('-F ' + shell('image=@"' + f.name.replace(/[\\"]/g, '\\$&') + '"'));
  for (const [name, value] of q.fields) parts.push('--form-string ' + shell(name + '=' + value));
  return parts.join(' \\\n  ');
}

function copyButton(pre) {
  const b = el('button', {type: 'button', textContent: 'Copy'});
  b.onclick = async () => {
    try {
      await navigator.clipboard.writeText(pre.textContent);
      b.textContent = 'Copied';
    } catch (e) { // not on a page without TLS: select it instead
      getSelection().selectAllChildren(pre);
      b.textContent = 'Selected';
    }
  };
  return b;
}

// Where a request and what comes of it are shown.
function card(q) {
  const pre = el('pre', {tabIndex: 0, textContent: curlOf(q)});
  const c = {
    q, urls: [], shown: 0,
    state: el('span', {textContent: 'Sending'}), left: el('span'), bar: el('progress', {max: 1, 'aria-label': 'Progress'}),
    answer: el('p', {className: 'answer', 'aria-live': 'polite'}), meta: el('p', {className: 'meta'}),
    body: el('div', {className: 'body'}), buttons: el('div', {className: 'buttons'}),
  };
  c.work = el('div', {className: 'work'}, el('p', {className: 'state'}, c.state, c.left), c.bar);
  c.root = el('article', {className: 'busy', 'aria-busy': 'true', 'aria-label': q.title + ': ' + q.text},
    el('header', {}, el('h3', {}, el('span', {textContent: q.title}), q.text),
      ...q.files.slice(0, 4).map(f => el('img', {src: f.url, alt: f.name}))),
    c.work, c.answer, c.body, c.meta, c.buttons,
    el('details', {}, el('summary', {textContent: 'The same request with curl'}), pre, copyButton(pre)));
  $('empty').hidden = true;
  $('results').prepend(c.root);
  cards.unshift(c);
  for (const old of cards.splice(MAX_RESULTS)) {
    old.urls.forEach(u => URL.revokeObjectURL(u));
    old.root.remove();
  }
  return c;
}
const cards = [];

// A picture so far, or the last one. What was decoded late is not shown over what is newer.
async function showImage(c, e, turn) {
  const blob = new Blob([Uint8Array.from(atob(e.b64_json), x => x.charCodeAt(0))], {type: 'image/png'});
  const img = el('img', {src: URL.createObjectURL(blob), alt: (turn ? 'Synthetic image so far: ' : 'Synthetic image: ') + c.q.text});
  c.urls.push(img.src);
  await img.decode().catch(() => {});
  if (c.shown > (turn || Infinity)) return;
  c.shown = turn || Infinity;
  c.frame.querySelector('img')?.remove();
  c.frame.prepend(img);
  const side = Math.sqrt(e.total); // of the grid of tokens; only whole rows of it are drawn in a preview
  if (turn) c.frame.style.setProperty('--drawn', 100 * Math.floor(e.done / side) / side + '%');
  else { c.result = {blob, url: img.src}; c.frame.classList.remove('part'); }
}

function startDrawing(c) {
  c.frame = el('div', {className: 'frame part'});
  c.size = el('span', {textContent: 'Made by a model, not by a scanner.'});
  c.body.replaceChildren(el('figure', {}, c.frame, el('figcaption', {}, el('b', {textContent: 'AI GENERATED \u2013 NOT FOR DIAGNOSIS'}), c.size)));
}

function progress(c, state, done, total, left) {
  c.state.textContent = state;
  c.left.textContent = left || '';
  if (total) { c.bar.max = total; c.bar.value = done; } else c.bar.removeAttribute('value');
}

// One line of the stream.
async function take(c, e) {
  switch (e.type) {
  case 'queued':
    progress(c, e.position > 1 ? 'Waiting, place ' + e.position + ' in the queue' : 'Waiting for its turn');
    if (e.position > 1) say('Place ' + e.position + ' in the queue');
    break;
  case 'prefill':
    progress(c, c.q.files.length ? 'Looking at the image' : 'Reading', e.done, e.total);
    break;
  case 'token':
    progress(c, 'Answering');
    c.bar.hidden = true;
    if (e.text) c.answer.append(e.text);
    break;
  case 'progress':
    if (e.done < e.total) progress(c, 'Drawing, ' + Math.floor(100 * e.done / e.total) + ' %', e.done, e.total,
      e.seconds_left === undefined ? '' : 'about ' + seconds(e.seconds_left) + ' left');
    else progress(c, 'Finishing the pixels', e.done, e.total);
    break;
  case 'preview':
    showImage(c, e, e.done); // not awaited: the next lines need not wait for it
    say('Drawing, ' + Math.floor(100 * e.done / e.total) + ' percent');
    break;
  case 'image':
    await showImage(c, e, 0);
    c.size.textContent = 'Made by a model, not by a scanner. ' + e.size.replace('x', ' \u00d7 ') + ' pixels' +
      (c.frame.clientWidth > parseInt(e.size, 10) ? ', shown enlarged' : '') + '. The file is marked as synthetic too.';
    break;
  case 'error':
    throw new Trouble(200, e.error);
  }
}

function again(text, what) {
  return el('button', {type: 'button', textContent: text, onclick: what});
}

function finish(c, e) {
  const seed = c.q.fields.find(f => f[0] === 'seed')?.[1] || String(e.seed);
  const facts = [e.usage.completion_tokens + ' tokens in ' + seconds(e.timings.total_ms / 1000),
    'first after ' + seconds(e.timings.first_token_ms / 1000), 'seed ' + seed, e.model];
  if (c.q.kind === 'ask' && !c.answer.textContent) c.answer.textContent = '(The model gave an empty answer.)';
  if (e.finish_reason === 'length') facts.unshift('cut at the longest allowed length');
  c.meta.replaceChildren(...facts.map(f => el('span', {textContent: f})));
  say(c.q.kind === 'draw' ? 'The image is finished.' : 'The answer is complete.');
  if (!c.result) return;
  const use = kind => () => {
    files = [{blob: c.result.blob, name: 'synthetic.png', url: URL.createObjectURL(c.result.blob)}];
    showFiles();
    document.querySelector('[value=' + kind + ']').click();
    $('prompt').value = '';
    $('prompt').focus();
  };
  c.buttons.append(again('Download', () => el('a', {href: c.result.url, download: 'synthetic-' + seed + '.png'}).click()),
    again('Ask about it', use('ask')), again('Work on it', use('draw')));
}

function fail(c, e) {
  if (e.name === 'AbortError') {
    c.body.append(el('p', {className: 'error calm'}, el('span', {textContent: 'Stopped. What is shown is not complete.'})));
    say('Stopped');
    return;
  }
  const t = e instanceof Trouble ? e : new Trouble(0, {code: 'not_understood', message: String(e)}), [what, todo] = plainly(t);
  c.body.append(el('div', {className: 'error', role: 'alert'}, el('strong', {textContent: what}), el('span', {textContent: todo}),
    t.message ? el('small', {textContent: 'The server says: ' + t.message}) : null,
    t.status >= 400 && t.status < 500 && t.status !== 429 ? null : again('Try again', () => run(c.q))));
  for (const id of ['seed', 'temperature', 'max_tokens'])
    if (t.param === id) { $('settings').open = true; $(id).setAttribute('aria-invalid', 'true'); $(id).focus(); }
  if (t.status === 401) $('key').focus();
}

async function run(q) {
  if (running) return;
  const c = card(q), form = new FormData(), stop = running = new AbortController();
  q.files.forEach((f, i) => form.append('image', f.blob, 'image' + i));
  q.fields.forEach(([name, value]) => form.append(name, value));
  document.querySelectorAll('[aria-invalid]').forEach(e => e.removeAttribute('aria-invalid'));
  $('send').setAttribute('aria-disabled', 'true');
  $('stop').hidden = false;
  $('health').textContent = 'working';
  if (q.kind === 'draw') startDrawing(c);
  if (c.root.getBoundingClientRect().top > innerHeight - 120) c.root.scrollIntoView({block: 'start'});
  try {
    const r = await call(q.path, {method: 'POST', body: form, signal: stop.signal});
    for await (const e of lines(r)) {
      if (e.type === 'done') { finish(c, e); break; }
      await take(c, e);
    }
  } catch (e) {
    fail(c, e);
    stop.abort();
  }
  running = null;
  c.root.classList.remove('busy');
  c.root.setAttribute('aria-busy', 'false');
  c.work.hidden = true;
  if (c.frame && !c.shown) c.body.querySelector('figure').hidden = true;
  if (document.activeElement === $('stop')) $('prompt').focus();
  $('stop').hidden = true;
  $('send').removeAttribute('aria-disabled');
  setTimeout(look, 400); // a request that was stopped has left by then
}

function send() {
  if (running) return;
  const q = compose();
  if (!q.text) {
    $('prompt').setAttribute('aria-invalid', 'true');
    $('prompt').focus();
    say(q.label + ' is missing');
    return;
  }
  run(q);
}

// ---- events -----------------------------------------------------------------------------------------------------------------

function changeTask() {
  const t = TASKS[task()];
  $('prompt-label').textContent = t.label;
  $('prompt').placeholder = t.hint;
  $('send').textContent = t.button;
  $('max-field').hidden = task() === 'draw';
  $('examples').replaceChildren(...t.examples.map(text => el('button', {type: 'button', textContent: text, onclick: () => {
    $('prompt').value = text;
    $('prompt').removeAttribute('aria-invalid');
    $('prompt').focus();
  }})));
}

$('form').addEventListener('submit', e => { e.preventDefault(); send(); });
$('stop').addEventListener('click', () => running?.abort());
$('tasks').addEventListener('change', changeTask);
$('prompt').addEventListener('input', () => $('prompt').removeAttribute('aria-invalid'));
$('files').addEventListener('change', () => { addFiles([...$('files').files]); $('files').value = ''; });
document.addEventListener('keydown', e => {
  if (e.key === 'Escape' && running) { e.preventDefault(); running.abort(); }
  if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) { e.preventDefault(); send(); }
});
document.addEventListener('paste', e => {
  if (e.clipboardData.files.length) { e.preventDefault(); addFiles([...e.clipboardData.files]); }
});
for (const kind of ['dragover', 'dragleave', 'drop'])
  document.addEventListener(kind, e => {
    if (!e.dataTransfer?.types.includes('Files')) return;
    e.preventDefault();
    $('drop').classList.toggle('over', kind === 'dragover');
    if (kind === 'drop') addFiles([...e.dataTransfer.files]);
  });
document.addEventListener('visibilitychange', () => { if (!document.hidden) look(); });
setInterval(() => { if (!document.hidden && !running) look(); }, 15000);
changeTask();
look();
call('v1/models').catch(() => {}); // a server with keys says so now, not after the first question
