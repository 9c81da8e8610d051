"""Every phrasing the demo model knows: questions, answers, drawing prompts, text.

`ask(rng, item, kind)` returns (question, answer, pool): pool holds all answers
such a question may have; the base language model is trained with random ones,
so it knows the wording and nothing about pictures.  An item is either
{"kind": "xray", "pneumonia": 0 or 1} or the attributes of a phantom.
"""
from phantoms import NUMBERS, SHAPES

YES_NO = ["Yes", "No"]
MODALITY = ["What modality is this?", "Which imaging modality is shown?", "What kind of image is this?",
            "What is the modality of this image?", "What imaging modality is this?", "Which modality is this?"]
ORGAN = ["What organ is shown?", "Which organ is shown in the image?", "What body part is shown?",
         "Which part of the body is this?", "What organ is this?", "Which organ is it?", "What part of the body do you see?"]
PNEUMONIA = ["Is there evidence of pneumonia?", "Is there pneumonia?", "Does this X-ray show pneumonia?",
             "Does the patient have pneumonia?", "Are there signs of pneumonia in this image?", "Is pneumonia present?",
             "Is there evidence of pneumonia in this chest X-ray?", "Is there pneumonia in this image?",
             "Does this image show pneumonia?", "Can you see pneumonia?", "Do you see signs of pneumonia?",
             "Does this chest X-ray show evidence of pneumonia?", "Is this pneumonia?"]
CLEAR = ["Are the lungs clear?", "Is this chest X-ray normal?", "Is the chest healthy?", "Is this image normal?",
         "Are the lungs healthy?"]
FINDING = ["What is the finding?", "What is the most likely diagnosis?", "What does the X-ray show?",
           "What is the diagnosis?", "Is it pneumonia or are the lungs clear?"]
DESCRIBE = ["Describe the image.", "What does the image show?", "Describe this image in one sentence.", "What do you see?",
            "What is shown in this image?", "Please describe the image."]
REPORT = ["Write a short report.", "Write a report of this X-ray."]
REAL = ["Is this a real X-ray or a phantom?", "Is the image real or a phantom?"]
LESION = ["Is there a lesion?", "Is a lesion present?", "Does the image show a lesion?", "Do you see a bright lesion?",
          "Is there a lesion in the image?", "Can you see a lesion?"]
SIDE = ["On which side is the lesion?", "Is the lesion on the left or on the right?", "Which side of the image has the lesion?"]
HEIGHT = ["Is the lesion at the top or at the bottom?", "Is the lesion in the top or in the bottom half?"]
SIZE = ["How large is the lesion?", "Is the lesion small or large?", "What size is the lesion?"]
WHERE = ["Where is the lesion?", "In which corner is the lesion?"]
SHAPE = ["What shape is shown?", "Which shape is in the image?", "What shapes are drawn?"]
COUNT = ["How many shapes are there?", "How many shapes are in the image?", "How many objects do you see?"]
COUNT_OF = ["How many %ss are there?", "How many %ss are in the image?", "How many %ss do you see?"]
CHOICE = ["Which is correct?", "Choose the right answer.", "What does the image show?"]
MORE = ["Which image has more %s?", "Which of the two images has more %s?"]
SAME_ORGAN = ["Do both images show the same organ?", "Is the same organ shown in both images?"]
SAME_SHAPE = ["Do both images show the same shape?", "Are the shapes in both images the same?"]
WHICH_LESION = ["Which image has a lesion?", "In which image is there a lesion?"]

KNOWLEDGE = [
    (["What is pneumonia?", "Explain pneumonia."], "An infection of the lungs that fills the air sacs with fluid."),
    (["What does VQGAN mean?", "What is a VQGAN?"], "A network that turns an image into a grid of code words and back."),
    (["What is an X-ray?", "How does an X-ray work?"], "An image made with rays that pass through the body; bone looks bright."),
    (["What is MRI?", "What does MRI mean?"], "Magnetic resonance imaging; it makes slices of the body with a strong magnet."),
    (["Are you a medical device?", "Can I use you for a diagnosis?", "Can you replace a doctor?"],
     "No. I am a small demonstration model and not for clinical use."),
    (["Who are you?", "What are you?"], "A very small HealthGPT, trained to show how the server works."),
    (["What can you do?", "What can I ask you?"], "I answer questions about small chest X-rays and phantoms, and I draw them."),
    (["What data were you trained on?", "Which data set did you learn from?"], "PneumoniaMNIST from MedMNIST and phantoms drawn by a program."),
    (["What is H-LoRA?", "What does H-LoRA do?"], "A low rank plug-in with several experts that a router mixes for each token."),
    (["What is a phantom?", "What is a phantom in imaging?"], "An artificial test object or picture with a known content."),
    (["What is a lesion?", "Explain the word lesion."], "A region of damaged or abnormal tissue."),
    (["What are lungs?", "What do the lungs do?"], "The two organs in the chest that take up oxygen from the air."),
    (["How many images can I show you?", "How many images do you accept?"], "One or two images in each question."),
    (["How large are your images?", "What resolution do you draw?"], "I draw 64 by 64 pixels from 64 code words."),
]
IMAGE_FREE = [a for _, a in KNOWLEDGE]
LESION_KINDS = ("lesion", "side", "height", "size", "where")


def pick(rng, seq):
    return seq[int(rng.integers(len(seq)))]


def corner(item):
    return "%s %s" % (item["height"].capitalize(), item["side"])


def plural(item):
    return item["shape"] + ("s" if item["count"] > 1 else "")


def describe(item):
    if item["kind"] == "xray":
        return "A chest X-ray with pneumonia." if item["pneumonia"] else "A chest X-ray with clear lungs."
    if item["kind"] == "shapes":
        return "A drawing of %s %s." % (NUMBERS[item["count"]], plural(item))
    base = "A phantom of the %s" % item["kind"]
    if not item["lesion"]:
        return base + " without a lesion."
    return base + " with a %s lesion at the %s %s." % (item["size"], item["height"], item["side"])


def _describe_pool(item):
    if item["kind"] == "xray":
        return [describe({"kind": "xray", "pneumonia": p}) for p in (0, 1)]
    if item["kind"] == "shapes":
        return [describe({"kind": "shapes", "shape": s, "count": c}) for s in SHAPES for c in (1, 2, 3, 4)]
    return [describe({"kind": k, "lesion": True, "size": s, "height": h, "side": d}) for k in ("chest", "brain")
            for s in ("small", "large") for h in ("top", "bottom") for d in ("left", "right")] + \
           [describe({"kind": k, "lesion": False}) for k in ("chest", "brain")]


def kinds_for(item):
    """Question kinds that fit an item."""
    if item["kind"] == "xray":
        return ["modality", "organ", "pneumonia", "clear", "finding", "describe", "report", "real", "choice"]
    if item["kind"] == "shapes":
        return ["modality", "organ", "shape", "count", "count_of", "describe", "choice"]
    return ["modality", "organ", "describe", "choice", "real", "lesion"] + (["side", "height", "size", "where"] if item["lesion"] else [])


def _choice(rng, item):
    if item["kind"] == "xray":
        right, wrong = ("pneumonia", "clear lungs") if item["pneumonia"] else ("clear lungs", "pneumonia")
        options = [right, wrong] + list(rng.permutation(["a brain", "circles", "a hand", "a fracture"])[:2])
    elif item["kind"] == "shapes":
        right = item["shape"] + "s"
        options = [right] + [s + "s" for s in SHAPES if s != item["shape"]] + [pick(rng, ["a brain", "a chest"])]
    elif item["lesion"] and rng.integers(2):
        corners = ["%s %s" % (h, s) for h in ("top", "bottom") for s in ("left", "right")]
        right = "%s %s" % (item["height"], item["side"])
        options = [right] + [c for c in corners if c != right]
        order = [options[i] for i in rng.permutation(4)]
        head = "Where is the lesion?"
        return head + "".join(" (%s) %s" % (n, o) for n, o in zip("ABCD", order)), "ABCD"[order.index(right)]
    else:
        right = "a " + item["kind"]
        options = [right] + [o for o in ("a brain", "a chest", "circles", "a hand") if o != right][:3]
    order = [options[i] for i in rng.permutation(4)]
    return pick(rng, CHOICE) + "".join(" (%s) %s" % (n, o) for n, o in zip("ABCD", order)), "ABCD"[order.index(right)]


def ask(rng, item, kind):
    """(question, answer, answer pool) for one image."""
    xray, shapes = item["kind"] == "xray", item["kind"] == "shapes"
    if kind == "modality":
        return pick(rng, MODALITY), "Drawing" if shapes else "MRI" if item["kind"] == "brain" else "X-ray", ["Drawing", "MRI", "X-ray"]
    if kind == "organ":
        return pick(rng, ORGAN), "None" if shapes else "Brain" if item["kind"] == "brain" else "Chest", ["None", "Brain", "Chest"]
    if kind == "pneumonia":
        return pick(rng, PNEUMONIA), YES_NO[1 - item["pneumonia"]], YES_NO
    if kind == "clear":
        return pick(rng, CLEAR), YES_NO[item["pneumonia"]], YES_NO
    if kind == "finding":
        return pick(rng, FINDING), ["Clear lungs", "Pneumonia"][item["pneumonia"]], ["Clear lungs", "Pneumonia"]
    if kind == "describe":
        return pick(rng, DESCRIBE), describe(item), _describe_pool(item)
    if kind == "report":
        pool = ["The lungs are clear. Impression: normal chest.", "The lungs show opacity. Impression: pneumonia."]
        return pick(rng, REPORT), pool[item["pneumonia"]], pool
    if kind == "real":
        return pick(rng, REAL), "Real" if xray else "Phantom", ["Real", "Phantom"]
    if kind == "lesion":
        return pick(rng, LESION), YES_NO[0 if item["lesion"] else 1], YES_NO
    if kind == "side":
        return pick(rng, SIDE), item["side"].capitalize(), ["Left", "Right"]
    if kind == "height":
        return pick(rng, HEIGHT), item["height"].capitalize(), ["Top", "Bottom"]
    if kind == "size":
        return pick(rng, SIZE), item["size"].capitalize(), ["Small", "Large"]
    if kind == "where":
        return pick(rng, WHERE), corner(item), ["Top left", "Top right", "Bottom left", "Bottom right"]
    if kind == "shape":
        return pick(rng, SHAPE), item["shape"].capitalize() + "s", ["Circles", "Squares", "Triangles"]
    if kind == "count":
        return pick(rng, COUNT), NUMBERS[item["count"]].capitalize(), [n.capitalize() for n in NUMBERS[1:]]
    if kind == "count_of":
        shape = item["shape"] if rng.random() < 0.7 else pick(rng, SHAPES)
        n = item["count"] if shape == item["shape"] else 0
        return pick(rng, COUNT_OF) % shape, NUMBERS[n].capitalize(), [n.capitalize() for n in NUMBERS]
    if kind == "choice":
        return _choice(rng, item) + (list("ABCD"),)
    raise ValueError(kind)


PAIR_POOL = ["The first", "The second", "Both the same"]
LESION_POOL = ["The first", "The second", "Both", "Neither"]


def pair_kind(rng):
    """(question kind, phantom kind of image 1, of image 2)."""
    k = pick(rng, ["more", "same_shape", "same_organ", "which_lesion"])
    if k in ("more", "same_shape"):
        return k, "shapes", "shapes"
    return k, pick(rng, ["chest", "brain"]), pick(rng, ["chest", "brain"])


def ask_pair(rng, a, b, kind):
    """(question, answer, answer pool) for two phantoms."""
    if kind == "more":
        if a["shape"] == b["shape"] and rng.random() < 0.6:
            word, na, nb = a["shape"] + "s", a["count"], b["count"]
        else:
            word, na, nb = "shapes", a["count"], b["count"]
        return pick(rng, MORE) % word, PAIR_POOL[0 if na > nb else 1 if nb > na else 2], PAIR_POOL
    if kind == "same_shape":
        return pick(rng, SAME_SHAPE), YES_NO[0 if a["shape"] == b["shape"] else 1], YES_NO
    if kind == "same_organ":
        return pick(rng, SAME_ORGAN), YES_NO[0 if a["kind"] == b["kind"] else 1], YES_NO
    n = 3 - 2 * a["lesion"] - b["lesion"] if not (a["lesion"] and b["lesion"]) else 2
    return pick(rng, WHICH_LESION), LESION_POOL[{3: 3, 1: 0, 2: 1}[n] if not (a["lesion"] and b["lesion"]) else 2], LESION_POOL


# ---- generation ------------------------------------------------------------------------
RECONSTRUCT = ["Reconstruct the image.", "Reconstruct this image.", "Rebuild the image.", "Reproduce this image."]
DENOISE = ["Denoise the image.", "Remove the noise from this image.", "Clean the image of noise."]
SUPER = ["Increase the resolution of the image.", "Improve the resolution of this image.", "Sharpen the image."]
VERBS = ["Draw", "Draw", "Generate", "Create", "Show", "Please draw", "Make"]
WITH = ["a chest X-ray with pneumonia", "an X-ray of a chest with pneumonia", "a chest X-ray of a patient with pneumonia",
        "lungs with pneumonia"]
WITHOUT = ["a chest X-ray without pneumonia", "a chest X-ray of a healthy chest", "a normal chest X-ray", "healthy lungs",
           "a chest X-ray of a healthy patient", "lungs without pneumonia", "a healthy chest X-ray", "an X-ray of a normal chest"]
ANY_IMAGE = ["Draw an image.", "Generate an image.", "Create any image."]


def draw_prompt(rng, item):
    """A sentence that asks for this item; details may be left out."""
    verb = pick(rng, VERBS)
    if item["kind"] == "xray":
        return "%s %s." % (verb, pick(rng, WITH if item["pneumonia"] else WITHOUT))
    if item["kind"] == "shapes":
        number = pick(rng, ["a", "one"]) if item["count"] == 1 else NUMBERS[item["count"]]
        return "%s %s %s." % (verb, number, plural(item))
    base = "a brain slice" if item["kind"] == "brain" else "a chest phantom"
    if not item["lesion"]:
        return "%s %s without a lesion." % (verb, base)
    size = item["size"] + " " if rng.random() < 0.5 else ""
    place = pick(rng, ["", " on the " + item["side"], " on the " + item["side"], " at the " + item["height"],
                       " at the %s %s" % (item["height"], item["side"])])
    return "%s %s with a %slesion%s." % (verb, base, size, place)


# ---- plain text for the base language model --------------------------------------------
_SUBJECT = ["The doctor", "The patient", "A nurse", "The model", "The server", "A student", "The machine", "The reader"]
_VERB = ["reads", "shows", "stores", "sees", "sends", "keeps", "makes", "checks"]
_OBJECT = ["the image", "a report", "a slice of the brain", "the chest X-ray", "a picture of a hand", "the answer", "a question",
           "two images", "a drawing", "the data", "a list of words", "a small phantom", "the resolution", "a lesion"]
_TAIL = ["in the morning", "with care", "on the left", "on the right", "at the top", "at the bottom", "for the first time",
         "and then waits", "without noise", "in one sentence", "for the patient"]


def sentence(rng):
    """A general sentence: grammar and words, no fact about any picture."""
    s = "%s %s %s" % (pick(rng, _SUBJECT), pick(rng, _VERB), pick(rng, _OBJECT))
    return s + (" " + pick(rng, _TAIL) if rng.random() < 0.7 else "") + "."
