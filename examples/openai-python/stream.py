"""The answer as it grows: stream.py IMAGE "question" """
import base64
import os
import sys

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("HEALTHGPT_URL", "http://127.0.0.1:8080") + "/v1",
                api_key=os.environ.get("HEALTHGPT_API_KEY", "none"))
with open(sys.argv[1], "rb") as f:
    image = "data:image/png;base64," + base64.b64encode(f.read()).decode()
stream = client.chat.completions.create(
    model=os.environ.get("HEALTHGPT_MODEL", "healthgpt-demo"),
    messages=[{"role": "user", "content": [{"type": "text", "text": sys.argv[2]},
                                           {"type": "image_url", "image_url": {"url": image}}]}],
    stream=True, stream_options={"include_usage": True})
for chunk in stream:
    if chunk.choices and chunk.choices[0].delta.content:
        print(chunk.choices[0].delta.content, end="", flush=True)
    if chunk.usage:  # the last chunk, which has no choices
        print("\n%d tokens" % chunk.usage.completion_tokens)
