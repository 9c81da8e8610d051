#!/bin/sh
# Every route once. Writes xray.png, drawn.png and edited.png here.
set -eu
url=${HEALTHGPT_URL:-http://127.0.0.1:8080}
model=${HEALTHGPT_MODEL:-healthgpt-demo}
# -f: a refusal ends the script; -N: lines of a stream as they come.
call() {
    curl -fsSN -H "Authorization: Bearer ${HEALTHGPT_API_KEY:-none}" "$@"
}
# One value out of a JSON answer: json data.0.b64_json
json() {
    python3 -c 'import json, sys
v = json.load(sys.stdin)
for k in sys.argv[1].split("."):
    v = v[int(k) if k.isdigit() else k]
print(v)' "$1"
}

echo "== models"
call "$url/v1/models" | json data.0.id

echo "== an image from words (our own route, plain answer)"
call "$url/v1/draw" -F prompt='Draw a chest X-ray with pneumonia.' -F seed=3 | json image.b64_json | base64 -d >xray.png
ls xray.png

echo "== a question about it (a form; JSON works too)"
call "$url/v1/vqa" -F image=@xray.png -F question='Is there evidence of pneumonia?' | json text

echo "== the same, streamed as lines of JSON"
call "$url/v1/vqa" -F image=@xray.png -F question='What is shown in this image?' -F stream=true

echo "== OpenAI's chat, with the image as a data URI"
printf '{"model": "%s", "messages": [{"role": "user", "content": [
  {"type": "text", "text": "What is shown in this image?"},
  {"type": "image_url", "image_url": {"url": "data:image/png;base64,%s"}}]}]}' \
    "$model" "$(base64 -w 0 xray.png)" >chat.json
call "$url/v1/chat/completions" -H 'Content-Type: application/json' -d @chat.json | json choices.0.message.content
rm chat.json

echo "== the same as server-sent events, without an image"
call "$url/v1/chat/completions" -H 'Content-Type: application/json' -d '{"model": "'"$model"'", "stream": true,
  "messages": [{"role": "user", "content": "What is pneumonia?"}], "max_tokens": 8}'

echo "== OpenAI's images"
call "$url/v1/images/generations" -H 'Content-Type: application/json' \
    -d '{"model": "'"$model"'", "prompt": "Draw a chest X-ray.", "seed": 4}' | json data.0.b64_json | base64 -d >drawn.png
ls drawn.png

echo "== an image made from an image"
call "$url/v1/images/edits" -F image=@xray.png -F prompt='Reconstruct the image.' | json data.0.b64_json | base64 -d >edited.png
ls edited.png
