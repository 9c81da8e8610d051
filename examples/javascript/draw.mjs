// An image from words, growing: node draw.mjs "instruction" OUT.png
// In a browser (a page of the same origin): import {draw} from './draw.mjs'.

// The lines of a stream of JSON, each as soon as it is whole (docs/streaming.md).
async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const whole = (rest + value).split('\n');
    rest = whole.pop();
    for (const line of whole) yield JSON.parse(line);
  }
}

const png = base64 => new Blob([Uint8Array.from(atob(base64), c => c.charCodeAt(0))], {type: 'image/png'});

// onProgress({done, total, secondsLeft}), onPreview(blob of the picture so far); resolves to {blob, seed}.
export async function draw({url = '', key = 'none', prompt, image, seed, previews = 4, onProgress, onPreview, signal}) {
  const form = new FormData();
  form.append('prompt', prompt);
  form.append('stream', 'true');
  form.append('previews', previews);
  if (seed !== undefined) form.append('seed', seed);
  if (image) form.append('image', image, 'image');
  const response = await fetch(url + '/v1/draw', {method: 'POST', body: form, signal, headers: {Authorization: 'Bearer ' + key}});
  if (!response.ok) throw new Error((await response.json()).error.message);
  let blob;
  for await (const event of lines(response)) { // events that are not known here are passed over: new ones may come
    if (event.type === 'progress') onProgress?.({done: event.done, total: event.total, secondsLeft: event.seconds_left});
    if (event.type === 'preview') onPreview?.(png(event.b64_json));
    if (event.type === 'image') blob = png(event.b64_json);
    if (event.type === 'error') throw new Error(event.error.message);
    if (event.type === 'done') return {blob, seed: event.seed};
  }
  throw new Error('the stream ended before it was done');
}

if (typeof process !== 'undefined' && process.argv[1]?.endsWith('draw.mjs')) {
  const {writeFile} = await import('node:fs/promises');
  const [prompt, out] = process.argv.slice(2);
  let n = 0;
  const {blob, seed} = await draw({
    url: process.env.HEALTHGPT_URL ?? 'http://127.0.0.1:8080', key: process.env.HEALTHGPT_API_KEY, prompt,
    onProgress: p => console.log('%d of %d tokens, %s s left', p.done, p.total, p.secondsLeft ?? '?'),
    onPreview: () => console.log('preview %d', ++n),
  });
  await writeFile(out, Buffer.from(await blob.arrayBuffer()));
  console.log('%s, seed %d', out, seed);
}
