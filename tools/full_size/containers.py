"""Files of random tensors in the containers of the published weights, written as their own writers do: safetensors shards with an
index (huggingface_hub's split), and the zip of torch.save. What is not values is laid out here; full-size-fill writes the values."""
import collections
import json
import os
import pickle
import struct
import subprocess
import sys
import types
import zlib

SIZES = {"BF16": 2, "F32": 4, "I64": 8}


class Tensor:
    """Shape, type, and what its random values are like. `values`: the bytes themselves, where they are not random."""

    def __init__(self, name, dims, deviation=0.0, mean=0.0, dtype="BF16", values=None):
        self.name, self.dims, self.deviation, self.mean, self.dtype, self.values = name, tuple(dims), deviation, mean, dtype, values
        self.count = 1
        for d in self.dims:
            self.count *= d
        self.bytes = self.count * SIZES[dtype]


class Writer:
    """Writes files with `fill`, the program; without it they are holes (nothing but names and shapes: it costs no disk)."""

    def __init__(self, fill, seed):
        self.fill, self.seed, self.n_files, self.bytes = fill, seed, 0, 0

    def values(self, path, places):
        """places: (offset, tensor). -> CRC-32 of each."""
        self.n_files += 1
        self.bytes += sum(t.bytes for _, t in places)
        if not self.fill:
            return [0] * len(places)
        random = [(at, t) for at, t in places if t.values is None]
        jobs = "".join("%d %d %s %.9g %.9g\n" % (at, t.count, t.dtype.lower(), t.mean, t.deviation) for at, t in random)
        out = subprocess.run([self.fill, path, str(self.seed * 1000 + self.n_files)], input=jobs, stdout=subprocess.PIPE, text=True,
                             check=True).stdout.split()
        if len(out) != len(random):
            sys.exit("%s: %d of %d tensors written" % (path, len(out), len(random)))
        sums = iter(out)
        return [int(next(sums), 16) if t.values is None else zlib.crc32(t.values) for _, t in places]


# ---- safetensors ----------------------------------------------------------------------------------------------------------------


def save_safetensors(writer, path, tensors):
    """One file: by name, the header padded with spaces to 8 bytes."""
    header, at, places = {"__metadata__": {"format": "pt"}}, 0, []
    tensors = sorted(tensors, key=lambda t: t.name)
    for t in tensors:
        header[t.name] = {"dtype": t.dtype, "shape": list(t.dims), "data_offsets": [at, at + t.bytes]}
        at += t.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + at)
    for t in tensors:
        places.append((8 + len(text) + header[t.name]["data_offsets"][0], t))
    writer.values(path, places)


def split(tensors, limit):
    """In order, a new shard where the next tensor would pass `limit` bytes."""
    shards, size = [[]], 0
    for t in tensors:
        if shards[-1] and size + t.bytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(t)
        size += t.bytes
    return shards


def split_into(tensors, n):
    """In order, n shards, none much larger than need be."""
    shards = [list(tensors)]
    while len(shards) < min(n, len(tensors)):
        i = max((k for k in range(len(shards)) if len(shards[k]) > 1), key=lambda k: sum(t.bytes for t in shards[k]))
        whole, size = sum(t.bytes for t in shards[i]), 0
        for cut, t in enumerate(shards[i][:-1], 1):
            size += t.bytes
            if 2 * size >= whole:
                break
        shards[i:i + 1] = [shards[i][:cut], shards[i][cut:]]
    return shards


def save_sharded(writer, folder, shards):
    names = ["model-%05d-of-%05d.safetensors" % (i + 1, len(shards)) for i in range(len(shards))]
    where = {t.name: name for name, shard in zip(names, shards) for t in shard}
    for name, shard in zip(names, shards):
        save_safetensors(writer, os.path.join(folder, name), shard)
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": sum(t.bytes for shard in shards for t in shard)}, "weight_map": dict(sorted(where.items()))}, f, indent=2)
        f.write("\n")


# ---- torch.save -----------------------------------------------------------------------------------------------------------------
# Names for the pickle, in modules that look like torch's. Nothing is imported, nothing is called.


def fake(module, name, kind):
    for i in range(1, module.count(".") + 2):
        parent = ".".join(module.split(".")[:i])
        sys.modules.setdefault(parent, types.ModuleType(parent))
    thing = type(name, (), {}) if kind == "class" else eval("lambda *a: None")
    thing.__module__, thing.__name__, thing.__qualname__ = module, name, name
    setattr(sys.modules[module], name, thing)
    return thing


STORAGES = {"BF16": "BFloat16Storage", "F32": "FloatStorage", "I64": "LongStorage"}


class Storage:
    def __init__(self, kind, key, count):
        self.kind, self.key, self.count = kind, key, count


class Stored:
    def __init__(self, rebuild, storage, dims):
        strides, n = [], 1
        for d in reversed(dims):
            strides.insert(0, n)
            n *= d
        self.parts = (rebuild, (storage, 0, dims, tuple(strides), False, collections.OrderedDict()))

    def __reduce_ex__(self, protocol):
        return self.parts


class TorchPickler(pickle.Pickler):
    def persistent_id(self, x):
        return ("storage", x.kind, x.key, "cpu", x.count) if isinstance(x, Storage) else None


def pickled(tensors, wrap):
    import io
    rebuild = fake("torch._utils", "_rebuild_tensor_v2", "function")
    kinds = {d: fake("torch", STORAGES[d], "class") for d in STORAGES}
    state, out = collections.OrderedDict(), io.BytesIO()
    for i, t in enumerate(tensors):
        state[t.name] = Stored(rebuild, Storage(kinds[t.dtype], str(i), t.count), t.dims)
    TorchPickler(out, 2).dump(wrap(state) if wrap else state)
    return out.getvalue()


class Zip:
    """Stored members, data at multiples of 64 by an "FB" extra field, sums and sizes behind the data, as PyTorch's writer leaves them."""

    def __init__(self, root):
        self.root, self.at, self.members = root, 0, []

    def add(self, name, size, data=None):
        name = ("%s/%s" % (self.root, name)).encode()
        pad = -(self.at + 30 + len(name) + 4) % 64
        local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 0, 0x808, 0, 0, 0, 0, 0, 0, len(name), 4 + pad) + name
        local += b"FB" + struct.pack("<H", pad) + b"Z" * pad
        if size >= 1 << 32 or self.at >= 1 << 32:
            sys.exit("%s: zip64 is not written here" % name.decode())
        member = {"name": name, "header": self.at, "local": local, "data_at": self.at + len(local), "size": size, "data": data}
        self.members.append(member)
        self.at = member["data_at"] + size + 16
        return member["data_at"]

    def finish(self, f, sums):
        central = b""
        for m in self.members:
            crc = sums.get(m["data_at"], zlib.crc32(m["data"]) if m["data"] is not None else 0)
            f.seek(m["header"])
            f.write(m["local"])
            if m["data"] is not None:
                f.write(m["data"])
            f.seek(m["data_at"] + m["size"])
            f.write(struct.pack("<4sIII", b"PK\7\10", crc, m["size"], m["size"]))
            central += struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 0, 0, 0x808, 0, 0, 0, crc, m["size"], m["size"], len(m["name"]), 0, 0,
                                   0, 0, 0, m["header"]) + m["name"]
        f.seek(self.at)
        n = len(self.members)
        f.write(central + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, n, n, len(central), self.at, 0))


def save_torch(writer, path, tensors, wrap=None):
    """torch.save of an OrderedDict of tensors, or of what `wrap` makes of it."""
    z, places = Zip(os.path.splitext(os.path.basename(path))[0]), []
    text = pickled(tensors, wrap)
    z.add("data.pkl", len(text), text)
    z.add("byteorder", 6, b"little")
    for i, t in enumerate(tensors):
        places.append((z.add("data/%d" % i, t.bytes, t.values), t))
    z.add("version", 2, b"3\n")
    with open(path, "wb") as f:
        f.truncate(z.at)
    sums = writer.values(path, places)
    with open(path, "r+b") as f:
        z.finish(f, {at: crc for (at, _), crc in zip(places, sums)})
