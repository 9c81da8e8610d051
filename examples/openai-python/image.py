"""An image from words, with what there is of it on the way: image.py "instruction" OUT.png"""
import base64
import os
import sys

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("HEALTHGPT_URL", "http://127.0.0.1:8080") + "/v1",
                api_key=os.environ.get("HEALTHGPT_API_KEY", "none"))
prompt, out = sys.argv[1:3]
# partial_images: 0 to 3. What OpenAI has no name for goes into extra_body: the same seed gives the same image.
events = client.images.generate(model=os.environ.get("HEALTHGPT_MODEL", "healthgpt-demo"), prompt=prompt,
                                stream=True, partial_images=3, extra_body={"seed": 7})
for event in events:
    done = event.type == "image_generation.completed"
    name = out if done else "%s.%d.png" % (out, event.partial_image_index)
    with open(name, "wb") as f:
        f.write(base64.b64decode(event.b64_json))
    print("%s  %s" % (name, event.size if done else "so far"))
