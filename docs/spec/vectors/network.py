"""Networks and their signed lists (spec 12), from the specification."""

import base64

import bottle
import cbor
import ed25519
from primitives import Refused, tagged_hash

ENVELOPE = 3
SIGNATURE_TAG = b"p17-list-v1"
LIST_BYTES, LIST_SIGNATURES, UNKNOWN_FIELDS, UNKNOWN_DEPTH = 1 << 20, 32, 16, 4
DAY_S = 24 * 3600
LIFE_S, AHEAD_S = 90 * DAY_S, 3600
(
    KEY_NETWORK, KEY_SEQ, KEY_ISSUED, KEY_EXPIRES, KEY_RANDOM, KEY_NODES, KEY_PARAMS, KEY_ROOTS, KEY_RELEASES,
) = range(1, 10)  # fmt: skip
REQUIRED = set(range(KEY_NETWORK, KEY_PARAMS + 1))


class RefusedFor(Refused):
    """A refusal with its reason as the vectors call it."""

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason


# ---- Networks (spec 12, 1) ----


def network_id(name, threshold, roots):
    encoded = name.encode()
    return tagged_hash("p17-network-v1", bytes([len(encoded)]), encoded, bytes([threshold]), *sorted(roots))


def id_text(network):
    return base64.b32encode(network).decode().lower().rstrip("=")


# ---- Lists (spec 12, 2) ----


def seed(payload):
    return tagged_hash("p17-seed-v1", payload)


def sign(payload, root_seeds):
    """The envelope."""
    pairs = [[ed25519.public_key(root), ed25519.sign(root, SIGNATURE_TAG + payload)] for root in root_seeds]
    return cbor.encode([ENVELOPE, payload, sorted(pairs)])


def parse(envelope):
    """(payload, signature by key)."""
    if len(envelope) > LIST_BYTES:
        raise RefusedFor("TooLarge")
    outer = cbor.decode(envelope)
    if not isinstance(outer, list) or len(outer) < 2 or outer[0] is True or outer[0] != ENVELOPE:
        raise RefusedFor("NotAList")
    if len(outer) != 3:
        raise RefusedFor("NewerVersion")
    _, payload, pairs = outer
    if not isinstance(payload, bytes) or not isinstance(pairs, list) or len(pairs) > LIST_SIGNATURES:
        raise Refused("not an envelope")
    if not all(isinstance(pair, list) and len(pair) == 2 and _is_bytes(pair[0], 32) and _is_bytes(pair[1], 64) for pair in pairs):
        raise Refused("not a list of signatures")
    keys = [key for key, _ in pairs]
    if any(before >= after for before, after in zip(keys, keys[1:])):
        raise Refused("keys do not ascend")
    return payload, dict(pairs)


def verify(envelope, network, now_s):
    """(fields, payload, number of roots that signed). `network` as in the vectors: id, threshold, roots."""
    payload, signatures = parse(envelope)
    roots, network_name = [bytes.fromhex(root) for root in network["roots"]], bytes.fromhex(network["id"])
    signers = sum(_has_signed(root, payload, signatures) for root in roots)
    fields = read_fields(payload)
    if _is_bytes(fields[KEY_NETWORK], 32) and fields[KEY_NETWORK] != network_name:
        raise RefusedFor("OtherNetwork")
    if signers < network["threshold"]:
        raise RefusedFor("TooFewSignatures")
    check_fields(fields)
    check_nodes(fields[KEY_NODES], fields[KEY_PARAMS])
    if fields[KEY_ISSUED] > now_s + AHEAD_S:
        raise RefusedFor("Future")
    if fields[KEY_EXPIRES] <= now_s:
        raise RefusedFor("Expired")
    return fields, payload, signers


def _has_signed(root, payload, signatures):
    if root not in signatures:
        return False
    try:
        ed25519.verify(root, SIGNATURE_TAG + payload, signatures[root])
    except Refused:
        return False
    return True


def read_fields(payload):
    fields = cbor.decode(payload)
    if not isinstance(fields, dict) or not all(_is_number(key) for key in fields):
        raise Refused("not a map of integer keys")
    if not REQUIRED <= fields.keys():
        raise Refused("a field is missing")
    return fields


def check_fields(fields):
    unknown = {key: value for key, value in fields.items() if not KEY_NETWORK <= key <= KEY_RELEASES}
    if len(unknown) > UNKNOWN_FIELDS or any(_depth(value) > UNKNOWN_DEPTH for value in unknown.values()):
        raise Refused("too many unknown fields, or nested too deep")
    for key, value in fields.items():
        if key in CHECKS and not CHECKS[key](value):
            raise Refused(f"field {key} is out of bounds")
    if not 1 <= fields[KEY_EXPIRES] - fields[KEY_ISSUED] <= LIFE_S:
        raise Refused("the list lives too long, or not at all")


def check_nodes(envelopes, params):
    """A listed Bottle is judged as of its own seq: any age is right."""
    if any(code in params for code in (3, 5, 6, 7)):
        raise Refused("vectors here keep the lives of Bottles at their defaults")
    seen = set()
    for envelope in envelopes:
        parsed, _, _ = bottle.parse(envelope)
        fields, _, _ = bottle.verify(envelope, parsed[bottle.KEY_SEQ])
        if fields[bottle.KEY_SCOPE] != 0:
            raise Refused("a local Bottle in a list")
        if fields[bottle.KEY_IDENTITY] in seen:
            raise Refused("a node stands twice")
        seen.add(fields[bottle.KEY_IDENTITY])


def _is_bytes(value, length):
    return isinstance(value, bytes) and len(value) == length


def _is_number(value, least=0, most=2**64 - 1):
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_text(value, most):
    return isinstance(value, str) and 1 <= len(value) <= most and all(" " <= letter <= "~" for letter in value)


def _depth(value):
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 0


def _are_nodes(value):
    return isinstance(value, list) and all(isinstance(node, bytes) and 1 <= len(node) <= bottle.BOTTLE_BYTES for node in value)


def _are_roots(value):
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], list):
        return False
    threshold, keys = value
    ascend = all(before < after for before, after in zip(keys, keys[1:]))
    return _is_number(threshold, 1, len(keys)) and len(keys) <= 16 and all(_is_bytes(key, 32) for key in keys) and ascend


def _is_release(value):
    if not isinstance(value, list) or len(value) != 4:
        return False
    version, platform, digest, url = value
    return _is_text(version, 64) and _is_text(platform, 64) and _is_bytes(digest, 32) and _is_text(url, 512)


# ---- Parameters (spec 09, 1) ----

NAMES = {"default", "private", "demo", "own"}
LONGEST_MS = 3650 * DAY_S * 1000


def _is_rate(value):
    return isinstance(value, list) and len(value) == 2 and all(_is_number(part, 1, 1_000_000) for part in value)


def _number(least=0, most=2**32 - 1):
    return lambda value: _is_number(value, least, most)


def _time(least_ms=0, most_ms=LONGEST_MS):
    return lambda value: _is_number(value, least_ms, most_ms)


def _switch(value):
    return isinstance(value, bool)


# Those that the vectors use, with their ranges where these stand alone.
PARAMETERS = {
    1: ("name", lambda value: value in NAMES),
    20: ("ping_interval", _time(100, 600_000)),
    28: ("client_setups", _is_rate),
    42: ("hops", _number(3, 6)),
    50: ("diversity", _switch),
    51: ("quorum", _number(1, 16)),
}


def _are_params(value):
    if not isinstance(value, dict) or not all(_is_number(code) for code in value):
        return False
    return all(PARAMETERS[code][1](item) for code, item in value.items() if code in PARAMETERS)


CHECKS = {
    KEY_NETWORK: lambda value: _is_bytes(value, 32),
    KEY_SEQ: lambda value: _is_number(value, 1),
    KEY_ISSUED: _is_number,
    KEY_EXPIRES: _is_number,
    KEY_RANDOM: lambda value: _is_bytes(value, 32),
    KEY_NODES: _are_nodes,
    KEY_PARAMS: _are_params,
    KEY_ROOTS: _are_roots,
    KEY_RELEASES: lambda value: isinstance(value, list) and 1 <= len(value) <= 64 and all(map(_is_release, value)),
}

UNITS = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}


def value_of(text):
    """The value of a parameter's words."""
    if text in NAMES:
        return text
    if text in ("true", "false"):
        return text == "true"
    if "/s burst " in text:
        return [int(part) for part in text.split("/s burst ")]
    number, _, unit = text.partition(" ")
    return int(number) * UNITS[unit] if unit else int(number)


# ---- The vectors ----


def _expect(what, made, expected):
    if made != expected:
        raise Refused(f"{what} differs")


def _check_network(case):
    made = network_id(case["name"], case["threshold"], [bytes.fromhex(root) for root in case["roots"]])
    _expect("the id", made, bytes.fromhex(case["id"]))
    _expect("its text", id_text(made), case["id_text"])


def _payload_of(case, network):
    """The payload that says what the fields of a vector say."""
    content = {
        KEY_NETWORK: bytes.fromhex(network["id"]),
        KEY_SEQ: case["seq"],
        KEY_ISSUED: case["issued_s"],
        KEY_EXPIRES: case["expires_s"],
        KEY_RANDOM: bytes.fromhex(case["random"]),
        KEY_NODES: [bytes.fromhex(node) for node in case["nodes"]],
        KEY_PARAMS: {int(code): value_of(item["text"]) for code, item in case["params"].items()},
    }
    if case["roots"]:
        content[KEY_ROOTS] = [case["roots"]["threshold"], [bytes.fromhex(key) for key in case["roots"]["keys"]]]
    if case["releases"]:
        content[KEY_RELEASES] = [[v, platform, bytes.fromhex(digest), url] for v, platform, digest, url in case["releases"]]
    content |= {item["key"]: cbor.decode(bytes.fromhex(item["value"])) for item in case["unknown"]}
    return cbor.encode(content)


def _check_valid(case, network, now_s):
    value = lambda name: bytes.fromhex(case[name])
    fields, payload, signers = verify(value("envelope"), network, now_s)
    _expect("the payload made from the fields", _payload_of(case, network), value("payload"))
    _expect("the payload in the envelope", payload, value("payload"))
    _expect("the envelope made from the seeds", sign(payload, map(bytes.fromhex, case["root_seeds"])), value("envelope"))
    _expect("how many roots signed", signers, case["signers"])
    _expect("the seed", seed(payload), value("seed"))
    for code, item in case["params"].items():
        _expect(f"the name of parameter {code}", PARAMETERS[int(code)][0], item["name"])


NAMED = {"OtherNetwork", "TooFewSignatures", "Future", "Expired", "NewerVersion"}


def _check_invalid(case, network):
    try:
        verify(bytes.fromhex(case["envelope"]), network, case["now_s"])
    except RefusedFor as refusal:
        _expect("the reason", refusal.reason, case["error"])
    except Refused:
        # Which of the rules of encoding and bounds is broken first is the reader's affair; that one is, is not.
        if case["error"] in NAMED:
            raise Refused(f"refused as malformed, expected {case['error']}") from None
    else:
        raise Refused("taken, where it must be refused")


def check_vectors(vectors):
    """Yields (name, check) for everything in network.json. All lists are those of the first network."""
    network = vectors["networks"][0]
    for case in vectors["networks"]:
        yield f"network: {case['name']}", lambda case=case: _check_network(case)
    for case in vectors["valid"]:
        yield f"valid: {case['name']}", lambda case=case: _check_valid(case, network, vectors["now_s"])
    for case in vectors["invalid"]:
        yield f"invalid: {case['name']}", lambda case=case: _check_invalid(case, network)
