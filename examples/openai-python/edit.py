"""An image made from an image: edit.py IMAGE "instruction" OUT.png"""
import base64
import os
import sys

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("HEALTHGPT_URL", "http://127.0.0.1:8080") + "/v1",
                api_key=os.environ.get("HEALTHGPT_API_KEY", "none"))
image, prompt, out = sys.argv[1:4]
with open(image, "rb") as f:  # a name of our own: file names may hold what should not be sent
    answer = client.images.edit(model=os.environ.get("HEALTHGPT_MODEL", "healthgpt-demo"),
                                image=("image.png", f.read(), "image/png"), prompt=prompt)
with open(out, "wb") as f:
    f.write(base64.b64decode(answer.data[0].b64_json))
print("%s  %s" % (out, answer.size))
