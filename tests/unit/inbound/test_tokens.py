"""Tokens of callers: the accepted, the refused, and every known way to have a forged one accepted."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import pytest

from meshlib.inbound.denials import Denial, Permit
from meshlib.inbound.effects import FetchKeys
from meshlib.inbound.tokens import authenticate
from meshlib.plan.authentication import tokens_of
from meshlib.policy.arriving import Arriving
from meshlib.policy.keyring import read_keys
from meshlib.policy.tokens import SKEW, TokenRules
from meshlib.policy.webtoken import ALGORITHMS, MAX_DEPTH, MAX_TOKEN
from meshlib.resources import JWTRule, RequestAuthenticationSpec
from meshlib.resources.authentication import ClaimToHeader, JWTHeader
from meshlib.state.inbound import InboundState
from tests.support.tokens import ISSUER, NOW, Issuer, b64, claims, compact, key

HONEST = Issuer("RS256", "one", "two")
OTHER = "https://other.example"


def rule(by: Issuer = HONEST, /, **fields: Any) -> JWTRule:
    return JWTRule(**{"issuer": ISSUER, "jwks": json.dumps(by.key_set()), **fields})


def rules(*written: JWTRule, state: InboundState | None = None) -> TokenRules:
    found = tokens_of([RequestAuthenticationSpec(jwt_rules=written or (rule(),))], state or InboundState())
    assert found is not None
    return found


def request(token: bytes | None = None, *, target: str = "/", headers: Sequence[tuple[bytes, bytes]] = ()) -> Arriving:
    own = [] if token is None else [(b"authorization", b"Bearer " + token)]
    return Arriving("GET", target.encode(), [(b"host", b"here"), *own, *headers], seen=target.partition("?")[0])


def admitted(
    written: TokenRules,
    arriving: Arriving,
    permit: Permit | None = None,
    *,
    wall: float = NOW,
    fetch: Callable[[FetchKeys], None] | None = None,
) -> Denial | None:
    """Run the step to its end; `fetch` performs what it asks for, and may be asked once."""
    step = authenticate(written, arriving, permit or Permit(), lambda: wall)
    if step is None or isinstance(step, Denial):
        return step
    try:
        effect = next(step)
        assert isinstance(effect, FetchKeys), effect
        assert fetch is not None, "it wants keys fetched"
        fetch(effect)
        step.send(None)
    except StopIteration as end:
        answer: Denial | None = end.value
        return answer
    raise AssertionError("keys were to be fetched twice for one request")


def test_the_claims_of_a_good_token_are_known_to_the_steps_that_follow() -> None:
    arriving = request(HONEST.token(groups=["a", "b"], realm={"roles": ["reader"]}))
    assert admitted(rules(), arriving) is None
    assert arriving.token_principal == f"{ISSUER}/jason"
    assert arriving.claims is not None
    assert arriving.claims["groups"] == ["a", "b"]
    assert arriving.claims["realm"] == {"roles": ["reader"]}


def test_no_token_is_no_fault_and_says_nothing() -> None:
    arriving = request()
    assert admitted(rules(), arriving) is None
    assert arriving.claims is None
    assert arriving.token_principal == ""


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_every_named_algorithm_works(algorithm: str) -> None:
    issuer = Issuer(algorithm)
    assert admitted(rules(rule(issuer)), request(issuer.token())) is None


def test_a_refusal_tells_the_caller_no_more_than_that_and_the_log_why() -> None:
    denial = admitted(rules(), request(HONEST.token(exp=NOW - 3600)))
    assert denial is not None
    assert denial.status == 401
    assert dict(denial.headers)[b"www-authenticate"] == b'Bearer error="invalid_token"'
    assert "it ended 3600 s ago" in denial.reason
    assert json.loads(denial.body)["detail"] == "the request's token isn't accepted"


def test_the_log_never_has_the_token() -> None:
    forged = compact({"alg": "RS256", "kid": "one"}, claims())
    denial = admitted(rules(), request(forged))
    assert denial is not None
    assert not any(part in denial.reason for part in forged.decode().split("."))


@pytest.mark.parametrize(
    ("said", "status", "why"),
    [
        ({"exp": NOW - SKEW}, 0, ""),
        ({"exp": NOW - SKEW - 1}, 401, "it ended 61 s ago"),
        ({"exp": None}, 0, ""),
        ({"exp": str(int(NOW + 600))}, 401, "its exp is no number"),
        ({"exp": True}, 401, "its exp is no number"),
        ({"exp": 10**400}, 401, "its exp is no time"),
        ({"nbf": -(10**400)}, 401, "its nbf is no time"),
        ({"nbf": NOW + SKEW}, 0, ""),
        ({"nbf": NOW + SKEW + 1}, 401, "it begins in 61 s by its nbf"),
        ({"nbf": "soon"}, 401, "its nbf is no number"),
        ({"iat": NOW + SKEW + 1}, 401, "it begins in 61 s by its iat"),
        ({"iat": [NOW]}, 401, "its iat is no number"),
        ({"iss": OTHER}, 401, "no rule is for tokens of 'https://other.example' in header authorization"),
        ({"iss": ISSUER + "/"}, 401, "no rule is for tokens of"),
        ({"iss": None}, 401, "its iss or its sub is no text"),
        ({"iss": [ISSUER]}, 401, "its iss or its sub is no text"),
        ({"sub": {"admin": 1}}, 401, "its iss or its sub is no text"),
        ({"aud": ["shop", "till"]}, 0, ""),
        ({"aud": {"shop": 1}}, 401, "its aud is neither"),
        ({"aud": ["shop", 1]}, 401, "its aud is neither"),
    ],
)
def test_what_a_token_says_of_itself(said: Mapping[str, Any], status: int, why: str) -> None:
    denial = admitted(rules(), request(HONEST.token(**said)))
    assert (denial.status if denial is not None else 0) == status
    assert why in (denial.reason if denial is not None else "")


@pytest.mark.parametrize(
    ("wanted", "said", "status"),
    [
        (("shop",), "shop", 0),
        (("shop",), ["till", "shop"], 0),
        (("shop", "till"), "till", 0),
        (("https://shop.example/",), "shop.example", 0),  # Envoy's reading of URLs
        (("shop.example",), "http://shop.example/", 0),
        (("shop",), "till", 403),
        (("shop",), "Shop", 403),
        (("shop",), "shop till", 403),
        (("shop",), [], 403),
        (("shop",), None, 403),
    ],
)
def test_a_token_for_others_is_403_as_in_envoy(wanted: tuple[str, ...], said: Any, status: int) -> None:
    denial = admitted(rules(rule(audiences=wanted)), request(HONEST.token(aud=said)))
    assert (denial.status if denial is not None else 0) == status


def public_pem() -> bytes:
    return key("RS256", 0).as_pem(private=False)


def with_hmac(secret: bytes, kid: str = "one") -> bytes:
    head = {"alg": "HS256", "kid": kid}
    signed = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(claims()).encode())}".encode()
    return signed + b"." + b64(hmac.digest(secret, signed, "sha256")).encode()


def signed(header: Mapping[str, Any], payload: Mapping[str, Any] | bytes | None = None) -> bytes:
    """By the honest issuer's own key, whatever the header says."""
    return compact({"alg": "RS256", "kid": "one", **header}, payload or claims(), key("RS256", 0))


GOOD = HONEST.token()
HEAD, BODY, SIGNATURE = GOOD.split(b".")
EVIL = key("RS256", 666)
EVIL_SET = {**EVIL.as_dict(private=False), "kid": "one"}

ATTACKS: dict[str, bytes] = {
    "no algorithm": compact({"alg": "none"}, claims()),
    "no algorithm, no signature": compact({"alg": "none"}, claims()).rpartition(b".")[0] + b".",
    "no algorithm, spelled otherwise": compact({"alg": "nOnE", "kid": "one"}, claims()),
    "algorithm left out": compact({"kid": "one"}, claims()),
    "algorithm is a list": compact({"alg": ["RS256"]}, claims()),
    "algorithm in small letters": compact({"alg": "rs256", "kid": "one"}, claims()),
    "public key as shared secret, PEM": with_hmac(public_pem()),
    "public key as shared secret, DER": with_hmac(base64.b64decode(b"".join(public_pem().splitlines()[1:-1]))),
    "public key as shared secret, JSON": with_hmac(json.dumps(HONEST.key_set("one")["keys"][0]).encode()),
    "empty shared secret": with_hmac(b""),
    "signed by a stranger": compact({"alg": "RS256", "kid": "one"}, claims(), EVIL),
    "signed by the issuer's other key": compact({"alg": "RS256", "kid": "two"}, claims(), key("RS256", 0)),
    "signature cut": GOOD[:-8],
    "signature empty": HEAD + b"." + BODY + b".",
    "signature all zero": HEAD + b"." + BODY + b"." + b64(bytes(256)).encode(),
    "claims exchanged": HEAD + b"." + b64(json.dumps(claims(sub="root")).encode()).encode() + b"." + SIGNATURE,
    "key in the header": compact({"alg": "RS256", "kid": "one", "jwk": EVIL_SET}, claims(), EVIL),
    "key at a URL of the header": compact({"alg": "RS256", "kid": "x", "jku": "https://evil/"}, claims(), EVIL),
    "certificate at a URL": compact({"alg": "RS256", "kid": "x", "x5u": "https://evil/"}, claims(), EVIL),
    "certificate in the header": compact({"alg": "RS256", "kid": "x", "x5c": ["MIIB"]}, claims(), EVIL),
    "kid is a path": compact({"alg": "RS256", "kid": "../../../dev/null"}, claims(), EVIL),
    "kid is SQL": compact({"alg": "RS256", "kid": "x' UNION SELECT 'k"}, claims(), EVIL),
    "kid is a command": compact({"alg": "RS256", "kid": "one|id"}, claims(), EVIL),
    "kid is a number": signed({"kid": 1}),
    "kid is a list": signed({"kid": ["one"]}),
    "kid is huge": signed({"kid": "x" * 2000}),
    "kid of another": signed({"kid": "two"}),
    "critical extension": signed({"crit": ["exp"], "exp": 1}),
    "unencoded payload": signed({"b64": False, "crit": ["b64"]}),
    "unencoded payload, not critical": signed({"b64": True}),
    "packed": signed({"zip": "DEF"}),
    "padding algorithm of another family": compact({"alg": "PS256", "kid": "one"}, claims(), EVIL),
    "elliptic algorithm with an RSA key": compact({"alg": "ES256", "kid": "one"}, claims()),
    "encrypted (five parts)": b".".join([HEAD, b"", b"AAAA", b"AAAA", b"AAAA"]),
    "encrypted, in three parts": signed({"enc": "A256GCM"}),
    "a token within a token": signed({"cty": "JWT"}, GOOD),
    "two parts": HEAD + b"." + BODY,
    "four parts": GOOD + b".AAAA",
    "JSON serialization": json.dumps({"protected": "x", "payload": "y", "signature": "z"}).encode(),
    "padding": GOOD.replace(b".", b"=.", 1),
    "a space within": GOOD.replace(b".", b" .", 1),
    "ordinary base64": GOOD.replace(b"-", b"+").replace(b"_", b"/") + b"+",
    "a line break": GOOD + b"\n.",
    "a claim twice": signed({}, b'{"iss":"%b","sub":"jason","sub":"root"}' % ISSUER.encode()),
    "a claim twice, deeper": signed({}, b'{"iss":"%b","a":{"b":1,"b":2}}' % ISSUER.encode()),
    "header twice": compact(b'{"alg":"RS256","alg":"none"}', claims()),
    "not a number": signed({}, b'{"iss":"%b","exp":NaN}' % ISSUER.encode()),
    "not a number, elsewhere": signed({}, b'{"iss":"%b","level":NaN}' % ISSUER.encode()),
    "never ending": signed({}, b'{"iss":"%b","exp":Infinity}' % ISSUER.encode()),
    "beyond all bounds": signed({}, b'{"iss":"%b","exp":1e999}' % ISSUER.encode()),
    "a number with five thousand digits": signed({}, b'{"iss":"%b","exp":%b}' % (ISSUER.encode(), b"9" * 5000)),
    "half a character": signed({}, b'{"iss":"%b","sub":"\\ud800"}' % ISSUER.encode()),
    "no UTF-8": signed({}, b'{"iss":"%b","sub":"\xff"}' % ISSUER.encode()),
    "UTF-16": signed({}, json.dumps(claims()).encode("utf-16")),
    "a byte order mark": signed({}, b"\xef\xbb\xbf" + json.dumps(claims()).encode()),
    "claims are a list": signed({}, json.dumps([claims()]).encode()),
    "claims are nothing": signed({}, b"null"),
    "nested deeply": signed({}, b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1)),
    "nested without end": signed({}, b"[" * 9000),
    "huge": signed({}, claims(a="x" * MAX_TOKEN)),
    "empty": b"",
    "rubbish": bytes(range(128, 256)),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused(name: str) -> None:
    """Each of them without a key fetched, and with the honest issuer's keys at hand."""
    arriving = request(ATTACKS[name])
    denial = admitted(rules(), arriving)
    assert denial is not None
    assert denial.status == 401
    assert arriving.claims is None
    assert arriving.token_principal == ""


def test_the_attacks_fail_for_what_they_are_not_for_how_they_are_made() -> None:
    assert admitted(rules(), request(signed({}))) is None
    assert admitted(rules(), request(signed({"typ": "at+jwt", "jku": "https://evil/", "x5u": "https://evil/"}))) is None
    assert admitted(rules(), request(signed({}, claims(a=[[[1]]])))) is None


def test_a_key_is_for_the_algorithm_it_says_it_is_for() -> None:
    only_pss = {"keys": [{**HONEST.key_set("one")["keys"][0], "alg": "PS256"}]}
    written = rules(rule(jwks=json.dumps(only_pss)))
    assert admitted(written, request(GOOD)) is not None
    assert admitted(written, request(compact({"alg": "PS256"}, claims(), key("RS256", 0)))) is None


def test_of_two_keys_of_one_name_either_will_do() -> None:
    first, second = HONEST.key_set()["keys"]
    written = rules(rule(jwks=json.dumps({"keys": [{**second, "kid": "one"}, {**first, "kid": "one"}]})))
    assert admitted(written, request(GOOD)) is None


def test_a_token_that_names_no_key_may_be_of_any() -> None:
    assert admitted(rules(), request(compact({"alg": "RS256"}, claims(), key("RS256", 1)))) is None


# Where tokens are.


@pytest.mark.parametrize(
    ("fields", "arriving"),
    [
        ({}, request(GOOD)),
        ({}, request(headers=[(b"authorization", b"bearer  " + GOOD)])),
        ({}, request(target=f"/?access_token={GOOD.decode()}")),
        ({}, request(target=f"/?a=b&access%5Ftoken={GOOD.decode()}&c")),
        ({"from_headers": (JWTHeader("X-Token"),)}, request(headers=[(b"x-token", GOOD)])),
        ({"from_headers": (JWTHeader("X-Token", "jwt "),)}, request(headers=[(b"x-token", b"JWT " + GOOD)])),
        ({"from_headers": (JWTHeader("Authorization"),)}, request(GOOD)),
        ({"from_headers": (JWTHeader("Authorization"),)}, request(headers=[(b"authorization", GOOD)])),
        ({"from_params": ("t",)}, request(target=f"/?t={GOOD.decode()}")),
        ({"from_cookies": ("t",)}, request(headers=[(b"cookie", b"a=b; t=" + GOOD)])),
        ({"from_cookies": ("t",)}, request(headers=[(b"cookie", b"a=b"), (b"cookie", b't="' + GOOD + b'";c=d')])),
    ],
)
def test_a_token_is_found_where_the_rule_looks(fields: Mapping[str, Any], arriving: Arriving) -> None:
    assert admitted(rules(rule(**fields)), arriving) is None
    assert arriving.token_principal == f"{ISSUER}/jason"


@pytest.mark.parametrize(
    ("fields", "arriving"),
    [
        ({}, request(headers=[(b"authorization", b"Basic " + GOOD)])),
        ({}, request(headers=[(b"x-token", GOOD)])),
        ({}, request(target=f"/{quote('?')}access_token={GOOD.decode()}")),
        ({}, request(headers=[(b"cookie", b"access_token=" + GOOD)])),
        ({"from_params": ("t",)}, request(GOOD)),
        ({"from_headers": (JWTHeader("x-token", "jwt "),)}, request(headers=[(b"x-token", GOOD)])),
    ],
)
def test_elsewhere_there_is_no_token(fields: Mapping[str, Any], arriving: Arriving) -> None:
    assert admitted(rules(rule(**fields)), arriving) is None
    assert arriving.claims is None


BAD = compact({"alg": "RS256", "kid": "one"}, claims(sub="root"))


@pytest.mark.parametrize(
    "arriving",
    [
        request(GOOD, headers=[(b"authorization", b"Bearer " + BAD)]),
        request(BAD, headers=[(b"authorization", b"Bearer " + GOOD)]),
        request(GOOD, target=f"/?access_token={BAD.decode()}"),
        request(target=f"/?access_token={GOOD.decode()}&access_token={BAD.decode()}"),
        request(GOOD, headers=[(b"authorization", b"Bearer " + HONEST.token(sub="root"))]),
    ],
)
def test_of_two_tokens_nobody_knows_which_the_application_takes(arriving: Arriving) -> None:
    """Envoy wants all of them good; Istio calls the principal of several good ones nondeterministic."""
    denial = admitted(rules(), arriving)
    assert denial is not None
    assert "tokens that differ" in denial.reason


def test_the_same_token_twice_is_one() -> None:
    assert admitted(rules(), request(GOOD, target=f"/?access_token={GOOD.decode()}")) is None


def test_a_rule_takes_tokens_from_its_own_places_only() -> None:
    """A token that its rule would look for in a cookie may have got elsewhere without its holder's doing."""
    mine = rule(from_cookies=("t",))
    theirs = rule(issuer=OTHER)
    written = rules(mine, theirs)
    assert admitted(written, request(headers=[(b"cookie", b"t=" + GOOD)])) is None
    denial = admitted(written, request(GOOD))
    assert denial is not None
    assert "no rule is for tokens of 'https://issuer.example' in header authorization" in denial.reason


def test_of_several_rules_for_one_issuer_one_is_enough() -> None:
    written = rules(rule(audiences=("shop",)), rule(audiences=("till",)))
    assert admitted(written, request(HONEST.token(aud="till"))) is None
    assert admitted(written, request(HONEST.token(aud="shop"))) is None
    assert admitted(written, request(HONEST.token(aud="else"))) is not None


def test_an_issuer_signs_for_itself_alone() -> None:
    written = rules(rule(), rule(Issuer("ES256"), issuer=OTHER))
    assert admitted(written, request(HONEST.token(iss=OTHER))) is not None
    assert admitted(written, request(Issuer("ES256").token(iss=OTHER))) is None


# What the application sees.


def test_the_token_stays_with_us_unless_the_rule_forwards_it() -> None:
    permit, arriving = Permit(), request(GOOD)
    assert admitted(rules(), arriving, permit) is None
    assert permit.remove == {b"authorization"}
    assert arriving.header(b"authorization") is None
    permit, arriving = Permit(), request(GOOD)
    assert admitted(rules(rule(forward_original_token=True)), arriving, permit) is None
    assert permit.remove == set()
    assert arriving.header(b"authorization") is not None


def test_a_token_is_cut_out_of_the_query() -> None:
    permit, arriving = Permit(), request(target=f"/p?a=%20b&access_token={GOOD.decode()}&c=")
    assert admitted(rules(), arriving, permit) is None
    assert permit.query == b"a=%20b&c="
    assert arriving.raw_target == b"/p?a=%20b&c="
    permit = Permit()
    assert admitted(rules(), request(target=f"/p?access_token={GOOD.decode()}"), permit) is None
    assert permit.query == b""


def test_a_token_is_cut_out_of_the_cookies() -> None:
    permit, arriving = Permit(), request(headers=[(b"cookie", b"a=b; t=" + GOOD + b"; c=d")])
    assert admitted(rules(rule(from_cookies=("t",))), arriving, permit) is None
    assert permit.remove == {b"cookie"}
    assert permit.add == [(b"cookie", b"a=b; c=d")]
    assert arriving.header(b"cookie") == "a=b; c=d"


@pytest.mark.parametrize(("other", "left"), [(b"a=b; ", [(b"cookie", b"a=b")]), (b"", [])])
def test_a_token_is_cut_out_of_every_cookie_it_is_in(other: bytes, left: list[tuple[bytes, bytes]]) -> None:
    permit, arriving = Permit(), request(headers=[(b"cookie", other + b"t=" + GOOD + b"; u=" + GOOD)])
    assert admitted(rules(rule(from_cookies=("t", "u"))), arriving, permit) is None
    assert permit.remove == {b"cookie"}
    assert permit.add == left
    assert [pair for pair in arriving.raw_headers if pair[0] == b"cookie"] == left


OUTPUT = rule(
    output_payload_to_header="X-Payload",
    output_claim_to_headers=tuple(
        ClaimToHeader(header, claim)
        for header, claim in [
            ("X-Sub", "sub"), ("X-Age", "age"), ("X-Ok", "ok"), ("X-Team", "org.team"), ("X-Dotted", "a.b/c"),
            ("X-Rate", "rate"), ("X-List", "groups"), ("X-Map", "org"), ("X-None", "nothing"), ("X-Break", "break"),
        ]
    ),
)  # fmt: skip


def test_claims_become_headers() -> None:
    permit, arriving = Permit(), request(
        token := HONEST.token(
            age=41, ok=True, org={"team": "blä"}, rate=1.5, groups=["a"], **{"a.b/c": 2.0, "break": "a\r\nx-sub: root"}
        )
    )  # fmt: skip
    assert admitted(rules(OUTPUT), arriving, permit) is None
    assert permit.add == [
        (b"x-payload", token.split(b".")[1]),
        (b"x-sub", b"jason"),
        (b"x-age", b"41"),
        (b"x-ok", b"true"),
        (b"x-team", "blä".encode()),
        (b"x-dotted", b"2"),
        (b"x-rate", b"1.5"),
    ]
    assert arriving.header(b"x-sub") == "jason"


@pytest.mark.parametrize("subject", [" root", "root ", "root\t", "\u2028root"])
def test_a_claim_that_reads_otherwise_without_its_blanks_becomes_no_header(subject: str) -> None:
    permit = Permit()
    assert admitted(rules(OUTPUT), request(HONEST.token(sub=subject)), permit) is None
    assert b"x-sub" not in dict(permit.add)


def test_what_a_caller_sends_under_those_names_is_nobodys_claim() -> None:
    """With or without a token, with a hyphen or its twin in CGI: neither the application nor a later step sees it."""
    for token in (None, GOOD):
        permit = Permit()
        arriving = request(token, headers=[(b"x-sub", b"root"), (b"x_age", b"99"), (b"x-none", b"1"), (b"a_b", b"c")])
        assert admitted(rules(OUTPUT), arriving, permit) is None
        assert {b"x-sub", b"x-age", b"x-none", b"x-payload"} <= permit.remove
        assert arriving.header(b"x-sub") == ("jason" if token else None)
        assert arriving.header(b"x_age") is None
        assert arriving.header(b"x-none") is None
        assert arriving.header(b"a_b") == "c"


def test_lists_written_with_spaces_are_lists() -> None:
    arriving = request(HONEST.token(scope="read write", permission="a", roles="x  y", sub="a b"))
    assert admitted(rules(rule(space_delimited_claims=("roles",))), arriving) is None
    assert arriving.claims is not None
    assert [arriving.claims[name] for name in ("scope", "permission", "roles", "sub")] == [
        ["read", "write"], ["a"], ["x", "y"], "a b",
    ]  # fmt: skip


def test_a_token_without_a_subject_has_no_principal() -> None:
    arriving = request(HONEST.token(sub=None))
    assert admitted(rules(), arriving) is None
    assert arriving.token_principal == ""
    assert arriving.claims is not None


# Verified tokens are kept.


def test_a_kept_token_ends_when_it_ends() -> None:
    written = rules()
    token = HONEST.token(exp=NOW + 10)
    assert admitted(written, request(token)) is None
    assert admitted(written, request(token), wall=NOW + 10 + SKEW) is None
    assert admitted(written, request(token), wall=NOW + 11 + SKEW) is not None


def test_a_kept_token_is_not_verified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    written = rules()
    assert admitted(written, request(GOOD)) is None
    monkeypatch.setattr("meshlib.policy.tokens.signed_by", lambda *_: pytest.fail("it was"))
    assert admitted(written, request(GOOD)) is None


def test_a_kept_token_is_good_in_its_own_places_only() -> None:
    written = rules(rule(from_cookies=("t",)), rule(issuer=OTHER))
    assert admitted(written, request(headers=[(b"cookie", b"t=" + GOOD)])) is None
    assert admitted(written, request(GOOD)) is not None


FETCHED = JWTRule(issuer=ISSUER, jwks_uri="https://issuer.example/keys", timeout=3.0)


def fetched(state: InboundState, *kids: str) -> None:
    (keys,) = state.tokens.wanted
    keys.ring = read_keys(json.dumps(HONEST.key_set(*kids)).encode())


def test_keys_that_were_never_had_are_waited_for() -> None:
    state = InboundState()
    written = rules(FETCHED, state=state)
    seen = []

    def fetch(effect: FetchKeys) -> None:
        seen.append(effect)
        fetched(state)

    assert admitted(written, request(GOOD), fetch=fetch) is None
    assert [(effect.source.uri, effect.wait) for effect in seen] == [("https://issuer.example/keys", 3.0)]
    assert admitted(written, request(HONEST.token("two"))) is None


def test_keys_that_cannot_be_had_are_401_as_in_envoy() -> None:
    state = InboundState()
    written = rules(FETCHED, state=state)
    state.tokens.wanted[0].error = "https://issuer.example/keys answered 500"
    denial = admitted(written, request(GOOD), fetch=lambda effect: None)
    assert denial is not None
    assert denial.status == 401
    assert "there are no keys of https://issuer.example: https://issuer.example/keys answered 500" in denial.reason
    assert b"issuer" not in denial.body


def test_an_unknown_key_is_asked_for_once_and_not_for_long() -> None:
    state = InboundState()
    written = rules(FETCHED, state=state)
    fetched(state, "one")
    waits: list[float] = []
    denial = admitted(written, request(HONEST.token("two")), fetch=lambda effect: waits.append(effect.wait))
    assert denial is not None
    assert "no key of https://issuer.example fits its RS256 signature by key 'two'" in denial.reason
    assert waits == [1.0]
    assert admitted(written, request(HONEST.token("two")), fetch=lambda effect: fetched(state)) is None


@pytest.mark.parametrize("name", sorted(ATTACKS.keys() - {name for name in ATTACKS if "kid" in name}))
def test_a_forged_token_seldom_has_keys_fetched(name: str) -> None:
    """Only what could be a new key's work is worth a look at the issuer."""
    if name.startswith(("key at", "certificate", "padding", "elliptic")):
        return  # these name keys that may come to be
    state = InboundState()
    written = rules(FETCHED, state=state)
    fetched(state)
    assert admitted(written, request(ATTACKS[name])) is not None


def test_what_was_verified_with_keys_that_are_gone_is_verified_anew() -> None:
    state = InboundState()
    written = rules(FETCHED, state=state)
    fetched(state)
    assert admitted(written, request(GOOD)) is None
    fetched(state, "two")
    assert admitted(written, request(GOOD), fetch=lambda effect: None) is not None


def test_another_plan_with_the_same_rules_keeps_what_was_verified() -> None:
    state = InboundState()
    first = rules(FETCHED, state=state)
    fetched(state)
    assert rules(FETCHED, state=state) is first
    changed = rules(JWTRule(issuer=ISSUER, jwks_uri=FETCHED.jwks_uri, timeout=3.0, audiences=("shop",)), state=state)
    assert changed is not first
    assert admitted(changed, request(GOOD)) is not None  # with the keys of before, which aren't fetched anew
