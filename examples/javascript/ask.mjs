// A question about an image through OpenAI's chat route, streamed: node ask.mjs IMAGE "question"
// In a browser (a page of the same origin): import {ask} from './ask.mjs'.

// The events of a stream of server-sent events; comments (": ping") are passed over.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const {value, done} = await reader.read();
    if (done) throw new Error('the stream ended before [DONE]');
    const blocks = (rest + value).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split('\n').filter(l => l.startsWith('data:')).map(l => l.slice(5).trim()).join('\n');
      if (data === '[DONE]') return;
      if (data) yield JSON.parse(data);
    }
  }
}

async function dataUri(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = '';
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return 'data:' + (blob.type || 'image/png') + ';base64,' + btoa(text);
}

// onText is called with every piece. An AbortSignal ends the request on the server too.
export async function ask({url = '', key = 'none', model = 'healthgpt-demo', image, question, onText, signal}) {
  const content = [{type: 'text', text: question}];
  if (image) content.push({type: 'image_url', image_url: {url: await dataUri(image)}});
  const response = await fetch(url + '/v1/chat/completions', {
    method: 'POST', signal,
    headers: {'Content-Type': 'application/json', Authorization: 'Bearer ' + key},
    body: JSON.stringify({model, stream: true, messages: [{role: 'user', content}]}),
  });
  if (!response.ok) throw new Error((await response.json()).error.message);
  let answer = '';
  for await (const event of events(response)) {
    if (event.error) throw new Error(event.error.message); // the status was 200 by then
    const piece = event.choices[0]?.delta.content ?? '';
    answer += piece;
    onText?.(piece);
  }
  return answer;
}

if (typeof process !== 'undefined' && process.argv[1]?.endsWith('ask.mjs')) {
  const {readFile} = await import('node:fs/promises');
  const [path, question] = process.argv.slice(2);
  await ask({
    url: process.env.HEALTHGPT_URL ?? 'http://127.0.0.1:8080', key: process.env.HEALTHGPT_API_KEY, model: process.env.HEALTHGPT_MODEL,
    image: new Blob([await readFile(path)]), question, onText: piece => process.stdout.write(piece),
  });
  process.stdout.write('\n');
}
