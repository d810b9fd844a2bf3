"""Routes in one packet and cells (spec 06, 1 and 2), from the specification."""

import xwing
from primitives import Refused, expand, extract, hmac, open_sealed, seal, tagged_hash, x25519, x25519_public

VERSION, SUITE = 1, 1
RELAY, EXIT = 0, 1
NEXT, MESSAGE = 0, 1
FORWARD, BACKWARD = 0, 1
BODY_BYTES, SETUP_BYTES, AREA_BYTES = 2040, 8160, 1938
SETUP_LAYER_BYTES, CREATED_LAYER_BYTES, CELL_LAYER_BYTES = 1216, 65, 17
INFO_BYTES = 72
REKEY_SHIFT = 16
ONE_MESSAGE = bytes(12)


def setup_bytes(delta):
    return SETUP_BYTES - SETUP_LAYER_BYTES * delta


def created_bytes(delta):
    return BODY_BYTES - CREATED_LAYER_BYTES * delta


def cell_bytes(delta):
    return BODY_BYTES - CELL_LAYER_BYTES * delta


def padded(data, length):
    assert len(data) <= length
    return data + bytes(length - len(data))


def all_zero(data):
    if any(data):
        raise Refused("padding is not zero")


# ---- Key schedule ----


def key_id(public):
    return tagged_hash("p17-key-v1", public)[:8]


def stamp(ct):
    return tagged_hash("p17-replay-v1", ct)[:16]


class FirstKeys:
    def __init__(self, node_id, public, ct, ss):
        self.th0 = tagged_hash("p17-th0-v1", node_id, key_id(public), public, ct)
        self.prk0 = extract(self.th0, ss)
        self.k_set = expand(self.prk0, "setup")
        self.f0 = expand(self.prk0, "fwd 0")
        self.up = expand(self.prk0, "upgrade")


class FreshKeys:
    def __init__(self, first, info, e_n, dh):
        self.th1 = tagged_hash("p17-th1-v1", first.th0, tagged_hash("p17-info-v1", info), e_n)
        self.prk1 = extract(first.up + self.th1, dh)
        self.f1 = expand(self.prk1, "fwd 1")
        self.b1 = expand(self.prk1, "bwd 1")
        self.created = expand(self.prk1, "created")
        self.conf = hmac(expand(self.prk1, "confirm"), self.th1)[:16]


# ---- SETUP ----


def encode_info(kind, slot, next_id, e_c):
    return bytes([VERSION, kind, SUITE, 0]) + slot.to_bytes(4, "big") + next_id + e_c


def decode_info(info):
    version, kind, suite, flags = info[:4]
    if (version, suite, flags) != (VERSION, SUITE, 0) or kind not in (RELAY, EXIT):
        raise Refused("a version, suite, kind or flag that is not known")
    if kind == EXIT:
        all_zero(info[8:40])
    return kind, int.from_bytes(info[4:8], "big"), info[8:40], info[40:]


def setup_aad(node_id, public, delta):
    return b"p17-setup-v1" + node_id + key_id(public) + bytes([delta])


def seal_record(node_id, public, delta, ct, k_set, info, rest):
    assert len(info) == INFO_BYTES and len(rest) == setup_bytes(delta + 1)
    record = key_id(public) + ct + seal(k_set, ONE_MESSAGE, setup_aad(node_id, public, delta), info + rest)
    assert len(record) == setup_bytes(delta)
    return record


def build_setup(hops, offset):
    """The packet for the guard. Each hop is (node id, public key, ct, FirstKeys, info), guard first."""
    rest = bytes(setup_bytes(offset + len(hops)))
    for i in reversed(range(len(hops))):
        node_id, public, ct, first, info = hops[i]
        rest = seal_record(node_id, public, offset + i, ct, first.k_set, info, rest)
    return padded(rest, SETUP_BYTES)


def open_setup(packet, node_id, xwing_seed, public, delta):
    """What a hop does with a packet: (ct, ss, FirstKeys, info, the packet for the next hop)."""
    if len(packet) != SETUP_BYTES or delta > 5 or packet[:8] != key_id(public):
        raise Refused("not a packet for this hop")
    all_zero(packet[setup_bytes(delta) :])
    ct = packet[8:1128]
    ss = xwing.decapsulate(xwing_seed, ct)
    first = FirstKeys(node_id, public, ct, ss)
    opened = open_sealed(first.k_set, ONE_MESSAGE, setup_aad(node_id, public, delta), packet[1128 : setup_bytes(delta)])
    info, rest = opened[:INFO_BYTES], opened[INFO_BYTES:]
    kind, *_ = decode_info(info)
    if kind == EXIT:
        all_zero(rest)
    elif delta == 5:
        raise Refused("a relay at the deepest place")
    return ct, ss, first, info, padded(rest, SETUP_BYTES)


# ---- CREATED ----


def created_aad(th1, delta):
    return b"p17-created-v1" + th1 + bytes([delta])


def seal_created(delta, e_n, fresh, status, inner):
    """A hop's CREATED body; `inner` is the body that came from the next hop, none where the hop answers itself."""
    if inner is None:
        inner = bytes(BODY_BYTES)
    all_zero(inner[created_bytes(delta + 1) :])
    plain = bytes([status]) + fresh.conf + inner[: created_bytes(delta + 1)]
    layer = e_n + seal(fresh.created, ONE_MESSAGE, created_aad(fresh.th1, delta), plain)
    assert len(layer) == created_bytes(delta)
    return padded(layer, BODY_BYTES)


def open_created(body, delta, first, info, e_c_secret):
    """The client's part: (eN, dh, FreshKeys, status, the layer of the next hop as a body)."""
    layer = body[: created_bytes(delta)]
    all_zero(body[created_bytes(delta) :])
    e_n = layer[:32]
    dh = x25519(e_c_secret, e_n)
    fresh = FreshKeys(first, info, e_n, dh)
    plain = open_sealed(fresh.created, ONE_MESSAGE, created_aad(fresh.th1, delta), layer[32:])
    status, conf, inner = plain[0], plain[1:17], plain[17:]
    if conf != fresh.conf:
        raise Refused("the confirmation is wrong")
    return e_n, dh, fresh, status, padded(inner, BODY_BYTES)


# ---- Cells ----


def generation_key(key, counter):
    """The key of a counter: one step for every 65,536 cells since the circuit's first, also where f1 begins later."""
    for _ in range(counter >> REKEY_SHIFT):
        key = expand(key, "rekey")
    return key


def cell_nonce(direction, counter):
    return direction.to_bytes(4, "big") + counter.to_bytes(8, "big")


def cell_aad(direction, flag, delta):
    return b"p17-cell-v1" + bytes([direction, flag, delta])


def seal_layer(key, direction, flag, delta, counter, kind, inner):
    assert len(inner) == cell_bytes(delta + 1)
    plain = bytes([kind]) + inner
    layer = seal(generation_key(key, counter), cell_nonce(direction, counter), cell_aad(direction, flag, delta), plain)
    assert len(layer) == cell_bytes(delta)
    return layer


def open_layer(key, direction, flag, delta, counter, body):
    """(kind, inner): what stands behind the layer must be zero."""
    all_zero(body[cell_bytes(delta) :])
    layer = body[: cell_bytes(delta)]
    plain = open_sealed(generation_key(key, counter), cell_nonce(direction, counter), cell_aad(direction, flag, delta), layer)
    kind, inner = plain[0], plain[1:]
    if kind not in (NEXT, MESSAGE):
        raise Refused("a kind that is not known")
    return kind, inner


def message_area(inner):
    all_zero(inner[AREA_BYTES:])
    return inner[:AREA_BYTES]


def seal_forward(keys, flag, offset, counters, area):
    """The client's body of a message for the last of `keys`, one key and counter a hop, guard first."""
    inner, kind = padded(area, cell_bytes(offset + len(keys))), MESSAGE
    for i in reversed(range(len(keys))):
        inner = seal_layer(keys[i], FORWARD, flag, offset + i, counters[i], kind, inner)
        kind = NEXT
    return padded(inner, BODY_BYTES)


def open_backward(keys, offset, counters, body):
    """The client's part of a cell that came back: (hop, message area)."""
    inner = body
    for i, key in enumerate(keys):
        kind, inner = open_layer(key, BACKWARD, 0, offset + i, counters[i], padded(inner, BODY_BYTES))
        if kind == MESSAGE:
            return i, message_area(inner)
    raise Refused("no message in any layer")


# ---- The vectors ----


def _check(what, made, expected):
    if made != bytes.fromhex(expected):
        raise Refused(f"{what} differs")


class Hop:
    """One hop of a vector: all of it made again from its seeds, by the client and by the hop, and compared."""

    def __init__(self, vector, offset, index, slot, next_id):
        value = lambda name: bytes.fromhex(vector[name])
        self.vector, self.delta = vector, offset + index
        self.node_id, self.xwing_seed = value("node_id"), value("xwing_seed")
        self.public = xwing.public_key(self.xwing_seed)
        self.e_c_secret, self.e_n_secret = value("eC_secret"), value("eN_secret")
        self.ss, self.ct = xwing.encapsulate(self.public, value("kem_m") + value("kem_ek_X"))
        self.first = FirstKeys(self.node_id, self.public, self.ct, self.ss)
        kind = RELAY if next_id else EXIT
        self.info = encode_info(kind, slot, next_id or bytes(32), x25519_public(self.e_c_secret))
        self.e_n = x25519_public(self.e_n_secret)
        # The hop computes its own side of the exchange; the client's is computed when CREATED is opened.
        self.dh = x25519(self.e_n_secret, self.info[40:])
        self.fresh = FreshKeys(self.first, self.info, self.e_n, self.dh)

    def check_values(self):
        from identity import identity_of

        public, node_id = identity_of(bytes.fromhex(self.vector["identity_seed"]))
        made = {
            "identity_public": public,
            "node_id": node_id,
            "circuit_public": self.public,
            "key_id": key_id(self.public),
            "eC_public": self.info[40:],
            "ct": self.ct,
            "ss": self.ss,
            "stamp": stamp(self.ct),
            "th0": self.first.th0,
            "PRK0": self.first.prk0,
            "K_set": self.first.k_set,
            "f0": self.first.f0,
            "up": self.first.up,
            "info": self.info,
            "eN_public": self.e_n,
            "dh": self.dh,
            "th1": self.fresh.th1,
            "PRK1": self.fresh.prk1,
            "f1": self.fresh.f1,
            "b1": self.fresh.b1,
            "created": self.fresh.created,
            "conf": self.fresh.conf,
        }
        for name, value in made.items():
            _check(name, value, self.vector[name])
        if self.vector["delta"] != self.delta:
            raise Refused("delta differs")

    def check_packet(self):
        """Opens the packet as the hop does; gives the one for the next hop."""
        packet = bytes.fromhex(self.vector["packet"])
        ct, ss, first, info, onward = open_setup(packet, self.node_id, self.xwing_seed, self.public, self.delta)
        if (ct, ss, first.k_set, info) != (self.ct, self.ss, self.first.k_set, self.info):
            raise Refused("the packet opens to something else")
        return onward


def _check_created(hops, bodies, statuses):
    """`bodies` from the guard to the hop that answers: made again from its end, then opened by the client."""
    made = None
    for hop, body, status in reversed(list(zip(hops, bodies, statuses))):
        made = seal_created(hop.delta, hop.e_n, hop.fresh, status, made)
        _check("a CREATED body", made, body)
    layer = made
    for hop, status in zip(hops, statuses):
        e_n, dh, fresh, got, layer = open_created(layer, hop.delta, hop.first, hop.info, hop.e_c_secret)
        if (e_n, dh, fresh.conf, got) != (hop.e_n, hop.dh, hop.fresh.conf, status):
            raise Refused("CREATED opens to something else")
    all_zero(layer)


def _check_forward(hops, offset, cell):
    target, flag, counters = cell["hop"], cell["flag"], cell["counters"]
    area, bodies = bytes.fromhex(cell["area"]), cell["bodies"]
    keys = [hop.fresh.f1 if flag else hop.first.f0 for hop in hops[: target + 1]]
    _check("the client's body", seal_forward(keys, flag, offset, counters, area), bodies[0])
    for i, key in enumerate(keys):
        kind, inner = open_layer(key, FORWARD, flag, offset + i, counters[i], bytes.fromhex(bodies[i]))
        if kind != (MESSAGE if i == target else NEXT):
            raise Refused("a layer of another kind")
        if i < target:
            _check(f"the body for hop {i + 1}", padded(inner, BODY_BYTES), bodies[i + 1])
        elif message_area(inner) != area:
            raise Refused("the message differs")


def _check_backward(hops, offset, cell):
    source, counters = cell["hop"], cell["counters"]
    if cell["flag"] != 0:
        raise Refused("the flag is for forward cells alone")
    area, bodies = bytes.fromhex(cell["area"]), cell["bodies"]
    keys = [hop.fresh.b1 for hop in hops[: source + 1]]
    inner, kind = padded(area, cell_bytes(offset + source + 1)), MESSAGE
    for i in reversed(range(source + 1)):
        inner, kind = seal_layer(keys[i], BACKWARD, 0, offset + i, counters[i], kind, inner), NEXT
        _check(f"the body from hop {i}", padded(inner, BODY_BYTES), bodies[i])
    if open_backward(keys, offset, counters, bytes.fromhex(bodies[0])) != (source, area):
        raise Refused("the client opens something else")


def check_vectors(vectors):
    """Yields (name, check) for everything in circuit.json."""
    offset, slot, listed = vectors["offset"], vectors["slot"], vectors["hops"]
    ids = [bytes.fromhex(hop["node_id"]) for hop in listed] + [None]
    hops = [Hop(vector, offset, i, slot, ids[i + 1]) for i, vector in enumerate(listed)]

    def whole_setup():
        if vectors["unix_seconds"] // 900 != slot:
            raise Refused("slot differs")
        route = [(hop.node_id, hop.public, hop.ct, hop.first, hop.info) for hop in hops]
        _check("SETUP", build_setup(route, offset), listed[0]["packet"])
        for hop, after in zip(hops, listed[1:] + [None]):
            onward = hop.check_packet()
            if after:
                _check("the packet that goes on", onward, after["packet"])
            else:
                all_zero(onward)

    for i, hop in enumerate(hops):
        yield f"key schedule of hop {i}", hop.check_values
    yield "SETUP, from the client through each hop", whole_setup
    bodies = [hop["created_body"] for hop in listed]
    yield "CREATED, from the exit to the client", lambda: _check_created(hops, bodies, [0] * len(hops))
    refused = vectors["refused"]
    statuses = [0] * refused["hop"] + [refused["status"]]
    refusing = lambda: _check_created(hops, refused["created_bodies"], statuses)
    yield f"CREATED where hop {refused['hop']} refuses", refusing
    for number, cell in enumerate(vectors["cells"], 1):
        check = _check_forward if cell["direction"] == "forward" else _check_backward
        name = f"cell {number}, {cell['direction']}, hop {cell['hop']}, flag {cell['flag']}, counters {cell['counters']}"
        yield name, lambda check=check, cell=cell: check(hops, offset, cell)
