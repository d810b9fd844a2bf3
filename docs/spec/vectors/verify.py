#!/usr/bin/python3
"""Reproduces every vector of this directory, independently of the Rust code. See README.md."""

import json
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True  # a check leaves nothing behind

import bottle  # noqa: E402
import circuit  # noqa: E402
import ed25519  # noqa: E402
import identity  # noqa: E402
import network  # noqa: E402
import tombstone  # noqa: E402
import xwing  # noqa: E402
from primitives import Refused  # noqa: E402

HERE = Path(__file__).parent


def unhex(case, name):
    return bytes.fromhex(case[name])


def expect(what, made, expected):
    if made != expected:
        raise Refused(f"{what} differs: made {made!r:.80}, expected {expected!r:.80}")


def expect_refusal(action):
    try:
        action()
    except Refused:
        return
    raise Refused("what must be refused was taken")


# ---- One function a file: each yields (name, check), and check raises what is wrong ----


def ed25519_cases(vectors):
    for case in vectors["published"] + vectors["own"]:
        yield case["name"], lambda case=case: check_ed25519(case)


def check_ed25519(case):
    verify = lambda: ed25519.verify(unhex(case, "public_key"), unhex(case, "message"), unhex(case, "signature"))
    verify() if case["valid"] else expect_refusal(verify)


def xwing_cases(vectors):
    for case in vectors["draft"] + vectors["own"]:
        yield case["name"], lambda case=case: check_xwing(case)
    for case in vectors["refused_keys"]:
        encapsulate = lambda case=case: xwing.encapsulate(unhex(case, "public_key"), bytes(range(64)))
        yield f"refused key: {case['name']}", lambda encapsulate=encapsulate: expect_refusal(encapsulate)
    for case in vectors["refused_ciphertexts"]:
        decapsulate = lambda case=case: xwing.decapsulate(unhex(case, "seed"), unhex(case, "ciphertext"))
        yield f"refused ciphertext: {case['name']}", lambda decapsulate=decapsulate: expect_refusal(decapsulate)


def check_xwing(case):
    seed, public, ciphertext = unhex(case, "seed"), unhex(case, "public_key"), unhex(case, "ciphertext")
    shared = unhex(case, "shared_secret")
    expect("the public key", xwing.public_key(seed), public)
    expect("the decapsulated secret", xwing.decapsulate(seed, ciphertext), shared)
    if "encapsulation_seed" in case:
        made = xwing.encapsulate(public, unhex(case, "encapsulation_seed"))
        expect("the encapsulation", made, (shared, ciphertext))


FILES = {
    "bottle.json": bottle.check_vectors,
    "circuit.json": circuit.check_vectors,
    "ed25519.json": ed25519_cases,
    "identity.json": identity.check_vectors,
    "network.json": network.check_vectors,
    "tombstone.json": tombstone.check_vectors,
    "xwing.json": xwing_cases,
}


def run(file, name, check):
    """Prints the line of one vector; true when it passed."""
    try:
        check()
    except Exception as error:  # whatever it is, this vector has failed and the others are to be tried
        print(f"FAIL  {file}: {name}: {type(error).__name__}: {error}")
        return False
    print(f"ok    {file}: {name}")
    return True


def main():
    started, results = time.monotonic(), []
    for file in sorted(FILES.keys() | {path.name for path in HERE.glob("*.json")}):
        try:
            vectors = json.loads((HERE / file).read_text())
            cases = list(FILES[file](vectors))
        except (OSError, ValueError, KeyError) as error:
            print(f"FAIL  {file}: cannot be read or is not known: {type(error).__name__}: {error}")
            results.append(False)
            continue
        if not cases:
            print(f"FAIL  {file}: holds no vector")
            results.append(False)
        results += [run(file, name, check) for name, check in cases]
    failed = results.count(False)
    print(f"{results.count(True)} passed, {failed} failed ({time.monotonic() - started:.1f} s)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
