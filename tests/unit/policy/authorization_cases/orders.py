"""What policies say together."""

from __future__ import annotations

from tests.support.authorization import Table

API = "istio/api authorization_policy.proto"
IMPLICIT = "istio.io: concepts/security, implicit enablement"
DRY_RUN = "istio.io: tasks/security/authorization/authz-dry-run"
SCOPES = "istio/api authorization_policy.proto, selector"

ALLOW_A = "rules: [{to: [{operation: {paths: ['/a*']}}]}]\n"
ALLOW_B = "rules: [{to: [{operation: {paths: [/b]}}]}]\n"
ALLOW_X = "rules: [{from: [{source: {namespaces: [x]}}]}]\n"
DENY_AB = "action: DENY\nrules: [{to: [{operation: {paths: ['/ab*']}}]}]\n"
ASK_ABC = "action: CUSTOM\nprovider: {name: opa}\nrules: [{to: [{operation: {paths: ['/abc*']}}]}]\n"
AUDIT_ALL = "action: AUDIT\nrules: [{}]\n"


def policy(spec: str, metadata: str) -> str:
    lines = "".join(f"  {line}\n" for line in spec.splitlines())
    return f"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{{metadata}}}\nspec:\n{lines}"


DRY = 'annotations: {"istio.io/dry-run": "true"}'

TABLES = [
    Table("without a policy everybody comes in", IMPLICIT, "", {"GET /": "allow", "GET /%2f": "allow"}),
    Table(
        "an ALLOW policy without rules lets nobody in", API, "{}\n", {"GET /": "deny", "POST /x from=ns/a/sa/b": "deny"}
    ),
    Table(
        "an empty rule is everything", API, "rules: [{}]\n", {"GET /": "allow", "GET /%2f": "allow", "get /": "allow"}
    ),
    Table(
        "an empty rule denies everything", API, "action: DENY\nrules: [{}]\n", {"GET /": "deny", "GET / from=x": "deny"}
    ),
    Table("AUDIT changes nothing", API, AUDIT_ALL, {"GET /": "allow"}),
    Table("only DENY", API, DENY_AB, {"GET /ab": "deny", "GET /a": "allow", "GET /": "allow"}),
    Table("only ALLOW", API, ALLOW_A, {"GET /ab": "allow", "GET /a": "allow", "GET /": "deny"}),
    Table(
        "DENY before ALLOW",
        API,
        f"{ALLOW_A}---\n{DENY_AB}",
        {"GET /a": "allow", "GET /ab": "deny", "GET /abc": "deny", "GET /b": "deny"},
    ),
    Table(
        "CUSTOM before DENY before ALLOW",
        API,
        f"{ALLOW_A}---\n{DENY_AB}---\n{ASK_ABC}---\n{AUDIT_ALL}",
        {"GET /a": "allow", "GET /ab": "deny", "GET /abc": "ask opa", "GET /abcd": "ask opa", "GET /b": "deny"},
    ),
    Table("only CUSTOM", API, ASK_ABC, {"GET /abc": "ask opa", "GET //abc": "ask opa", "GET /a": "allow"}),
    Table(
        "policies of one action are joined",
        API,
        f"{ALLOW_A}---\n{ALLOW_B}---\n{ALLOW_X}",
        {"GET /a": "allow", "GET /b": "allow", "GET /c": "deny", "GET /c from=ns/x/sa/y": "allow"},
    ),
    Table(
        "any rule of a policy",
        API,
        "rules:\n- {to: [{operation: {paths: [/a]}}]}\n- {to: [{operation: {paths: [/b]}}]}\n",
        {"GET /a": "allow", "GET /b": "allow", "GET /c": "deny"},
    ),
    Table(
        "a rule needs its source and its operation",
        API,
        "rules: [{from: [{source: {namespaces: [x]}}], to: [{operation: {methods: [GET]}}]}]\n",
        {
            "GET / from=ns/x/sa/y": "allow",
            "POST / from=ns/x/sa/y": "deny",
            "GET / from=ns/z/sa/y": "deny",
            "GET /": "deny",
        },
    ),
    Table(
        "an ALLOW policy that only is tried denies nobody",
        DRY_RUN,
        policy(ALLOW_A, f"name: dry, {DRY}"),
        {"GET /a": "allow", "GET /b": "allow", "GET /%2f": "allow"},
    ),
    Table(
        "a DENY policy that only is tried denies nobody",
        DRY_RUN,
        policy("action: DENY\nrules: [{}]\n", f"name: dry, {DRY}"),
        {"GET /a": "allow", "GET /%2f": "allow"},
    ),
    Table(
        "a policy that is tried beside one in force",
        DRY_RUN,
        policy("rules: [{}]\n", f"name: dry, {DRY}") + "---\n" + policy(ALLOW_A, "name: real"),
        {"GET /a": "allow", "GET /b": "deny"},
    ),
    Table(
        "an annotation that says false",
        DRY_RUN,
        policy("action: DENY\nrules: [{}]\n", 'name: real, annotations: {"istio.io/dry-run": "false"}'),
        {"GET /a": "deny"},
    ),
    Table(
        "policies of another namespace and for other labels",
        SCOPES,
        policy("action: DENY\nrules: [{}]\n", "name: a, namespace: other")
        + "---\n"
        + policy("selector: {matchLabels: {app: ratings}}\naction: DENY\nrules: [{}]\n", "name: b"),
        {"GET /": "allow"},
    ),
    Table(
        "policies for our labels",
        SCOPES,
        policy("selector: {matchLabels: {app: reviews, version: v1}}\naction: DENY\nrules: [{}]\n", "name: b"),
        {"GET /": "deny"},
    ),
    Table(
        "policies of the root namespace",
        SCOPES,
        policy("action: DENY\nrules: [{to: [{operation: {paths: [/mesh]}}]}]\n", "name: a, namespace: istio-system")
        + "---\n"
        + policy(
            "selector: {matchLabels: {version: v1}}\naction: DENY\nrules: [{to: [{operation: {paths: [/v1]}}]}]\n",
            "name: b, namespace: istio-system",
        )
        + "---\n"
        + policy(
            "selector: {matchLabels: {version: v2}}\naction: DENY\nrules: [{to: [{operation: {paths: [/v2]}}]}]\n",
            "name: c, namespace: istio-system",
        ),
        {"GET /mesh": "deny", "GET /v1": "deny", "GET /v2": "allow", "GET /": "allow"},
    ),
    Table(
        "a service account without a namespace, in the root namespace's policy, is of that",
        "istio/istio pilot/pkg/security/authz/model/generator.go",
        policy("rules: [{from: [{source: {serviceAccounts: [web]}}]}]\n", "name: a, namespace: istio-system"),
        {"GET / from=ns/istio-system/sa/web": "allow", "GET / from=ns/default/sa/web": "deny"},
    ),
    Table(
        "a policy for a gateway is for nobody here",
        "istio/api authorization_policy.proto, targetRef",
        policy(
            "targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: main}]\naction: DENY\nrules: [{}]\n",
            "name: a",
        ),
        {"GET /": "allow"},
    ),
]
