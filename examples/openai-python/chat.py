"""A question about an image, then a second one that needs the first: chat.py IMAGE "question" ["question"]"""
import base64
import os
import sys

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("HEALTHGPT_URL", "http://127.0.0.1:8080") + "/v1",
                api_key=os.environ.get("HEALTHGPT_API_KEY", "none"))
model = os.environ.get("HEALTHGPT_MODEL", "healthgpt-demo")

with open(sys.argv[1], "rb") as f:
    image = "data:image/png;base64," + base64.b64encode(f.read()).decode()  # a JPEG is found out as well
messages = []
for question in sys.argv[2:]:
    content = [{"type": "text", "text": question}]
    if not messages:  # once is enough: the chat so far is sent along
        content.append({"type": "image_url", "image_url": {"url": image}})
    messages.append({"role": "user", "content": content})
    answer = client.chat.completions.create(model=model, messages=messages)
    print(answer.choices[0].message.content)
    messages.append({"role": "assistant", "content": answer.choices[0].message.content})
usage = answer.usage
print("%d tokens, %d of them the image's, %d found in the cache" % (
    usage.total_tokens, usage.prompt_tokens_details.image_tokens, usage.prompt_tokens_details.cached_tokens), file=sys.stderr)
