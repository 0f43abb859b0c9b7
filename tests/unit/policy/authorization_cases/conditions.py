"""Further conditions: headers and tokens."""

from __future__ import annotations

from tests.support.authorization import Table

API = "istio/api authorization_policy.proto"
CONDITIONS = "istio.io: reference/config/security/conditions"
TESTDATA = "istio/istio tests/integration/security/testdata/authz/conditions.yaml.tmpl"
JWT = "istio/istio tests/integration/security/testdata/authz/jwt.yaml.tmpl"
GENERATOR = "istio/istio pilot/pkg/security/authz/model/generator.go"
OURS = "meshlib"

TABLES = [
    Table(
        "a header",
        TESTDATA,
        """
        rules:
        - {to: [{operation: {paths: [/is]}}], when: [{key: "request.headers[x-foo]", values: [foo]}]}
        - {to: [{operation: {paths: [/not]}}], when: [{key: "request.headers[x-foo]", notValues: [bar]}]}
        - {to: [{operation: {paths: [/part]}}], when: [{key: "request.headers[Cookie]", values: ["*foo=*"]}]}
        """,
        {
            "GET /is x-foo:foo": "allow",
            "GET /is X-Foo:foo": "allow",
            "GET /is x-foo:Foo": "deny",
            "GET /is x-foo:bar": "deny",
            "GET /is x-foo:": "deny",
            "GET /is": "deny",
            "GET /is x-fooo:foo": "deny",
            "GET /not x-foo:foo": "allow",
            "GET /not x-foo:bar": "deny",
            "GET /not": "allow",
            "GET /part 'cookie:a=b; foo=1'": "allow",
            "GET /part 'cookie:a=b'": "deny",
            "GET /part": "deny",
        },
    ),
    Table(
        "a star within a header's value stands for itself, as it does in Istio",
        GENERATOR,
        """
        rules:
        - {to: [{operation: {paths: [/in]}}], when: [{key: "request.headers[x-team]", values: ["a*b"]}]}
        - {to: [{operation: {paths: [/part]}}], when: [{key: "request.headers[x-team]", values: ["*a*b*"]}]}
        """,
        {
            "GET /in x-team:a*b": "allow",
            "GET /in x-team:axb": "deny",
            "GET /part x-team:1a*b2": "allow",
            "GET /part x-team:1axb2": "deny",
        },
    ),
    Table(
        "a header by its beginning, its end, and its being there",
        CONDITIONS,
        """
        rules:
        - {to: [{operation: {paths: [/begin]}}], when: [{key: "request.headers[user-agent]", values: ["Mozilla/*"]}]}
        - {to: [{operation: {paths: [/end]}}], when: [{key: "request.headers[x-team]", values: ["*-blue"]}]}
        - {to: [{operation: {paths: [/there]}}], when: [{key: "request.headers[x-team]", values: ["*"]}]}
        - {to: [{operation: {paths: [/absent]}}], when: [{key: "request.headers[x-team]", notValues: ["*"]}]}
        """,
        {
            "GET /begin 'user-agent:Mozilla/5.0 (X, like Gecko)'": "allow",
            "GET /begin user-agent:curl": "deny",
            "GET /end x-team:sky-blue": "allow",
            "GET /end x-team:blue": "deny",
            "GET /there x-team:any": "allow",
            "GET /there x-team:": "allow",
            "GET /there": "deny",
            "GET /absent x-team:any": "deny",
            "GET /absent x-team:": "deny",
            "GET /absent": "allow",
        },
    ),
    Table(
        "a header that allows, several times",
        "istio.io: reference/config/security/normalization, duplicate headers",
        'rules: [{when: [{key: "request.headers[x-role]", values: [admin, "ops*"]}]}]\n',
        {
            "GET / x-role:admin": "allow",
            "GET / x-role:admin x-role:user": "deny",
            "GET / x-role:user x-role:admin": "deny",
            "GET / x-role:admin x-role:admin": "deny",
            "GET / x-role:ops x-role:ops1": "allow",
            "GET / x-role:ops x-role:user": "deny",
            "GET / x-role:user,admin": "deny",
            "GET / 'x-role: admin '": "allow",
        },
    ),
    Table(
        "a header that denies, several times",
        OURS,
        'action: DENY\nrules: [{when: [{key: "request.headers[x-role]", values: [guest]}]}]\n',
        {
            "GET / x-role:guest": "deny",
            "GET / x-role:guest x-role:user": "deny",
            "GET / x-role:user x-role:guest": "deny",
            "GET / x-role:user,guest": "deny",
            "GET / 'x-role:user, guest'": "deny",
            "GET / x-role:guests": "allow",
            "GET / x-role:user x-role:admin": "allow",
            "GET /": "allow",
        },
    ),
    Table(
        "a header denied unless it is so",
        OURS,
        'action: DENY\nrules: [{when: [{key: "request.headers[x-key]", notValues: [secret]}]}]\n',
        {
            "GET / x-key:secret": "allow",
            "GET / x-key:wrong": "deny",
            "GET / x-key:secret x-key:wrong": "deny",
            "GET / x-key:wrong x-key:secret": "deny",
            "GET /": "deny",
        },
    ),
    Table(
        "a value denied by an ALLOW policy's negation",
        OURS,
        'rules: [{when: [{key: "request.headers[x-role]", notValues: [guest]}]}]\n',
        {
            "GET / x-role:user": "allow",
            "GET / x-role:guest": "deny",
            "GET / x-role:user x-role:guest": "deny",
            "GET / x-role:user,guest": "deny",
            "GET /": "allow",
        },
    ),
    Table(
        "a header whose name a CGI variable makes the same",
        OURS,
        """
        action: DENY
        rules: [{to: [{operation: {paths: [/deny]}}], when: [{key: "request.headers[x-user]", values: [root]}]}]
        ---
        rules:
        - {to: [{operation: {paths: [/deny]}}]}
        - {to: [{operation: {paths: [/allow]}}], when: [{key: "request.headers[x-user]", values: [root]}]}
        """,
        {
            "GET /deny x-user:root": "deny",
            "GET /deny x_user:root": "deny",
            "GET /deny x-user:ann x_user:root": "deny",
            "GET /deny X_USER:root": "deny",
            "GET /deny x-user:ann": "allow",
            "GET /allow x-user:root": "allow",
            "GET /allow x-user:root x_user:ann": "deny",
            "GET /allow x-user:ann x_user:root": "deny",
            "GET /allow x-user:root x_user:root": "deny",
        },
    ),
    Table(
        "a header and its twin, each by itself and joined",
        OURS,
        'rules: [{when: [{key: "request.headers[x-l]", values: [a, b, c, "a,b,c", "a,c"]}]}]\n',
        {
            "GET / x-l:a x-l:b x_l:c": "deny",
            "GET / x-l:a x_l:c": "allow",
            "GET / x-l:a x_l:b": "deny",
        },
    ),
    Table(
        "tokens",
        JWT,
        """
        rules:
        - {to: [{operation: {paths: [/token1]}}], from: [{source: {requestPrincipals: [i1@x/sub-1]}}]}
        - {to: [{operation: {paths: [/token2]}}], when: [{key: "request.auth.claims[groups]", values: [group-2]}]}
        - {to: [{operation: {paths: [/token3]}}], from: [{source: {notRequestPrincipals: [i1@x/sub-1]}}]}
        - {to: [{operation: {paths: [/any]}}], from: [{source: {requestPrincipals: ["*"]}}]}
        - {to: [{operation: {paths: [/valid]}}], when: [{key: request.auth.principal, values: ["*"]}]}
        - {to: [{operation: {paths: [/permission]}}], when: [{key: "request.auth.claims[permission]",
           values: [write, append]}]}
        - {to: [{operation: {paths: [/nested]}}], when: [{key: "request.auth.claims[nested][key1]", values: [B]}]}
        - {to: [{operation: {paths: [/deep]}}], when: [{key: "request.auth.claims[nested][n2][key]", values: [A]}]}
        - {to: [{operation: {paths: ["*/presenter"]}}], when: [{key: request.auth.presenter, values: [bar]}]}
        - {to: [{operation: {paths: ["*/audiences"]}}], when: [{key: request.auth.audiences, values: [foo, "b*"]}]}
        """,
        {
            """GET /token1 claims='{"iss":"i1@x","sub":"sub-1"}'""": "allow",
            """GET /token1 claims='{"iss":"i1@x","sub":"sub-2"}'""": "deny",
            """GET /token1 claims='{"iss":"i2@x","sub":"sub-1"}'""": "deny",
            """GET /token1 claims='{"iss":"i1@x"}'""": "deny",
            "GET /token1": "deny",
            """GET /token2 claims='{"groups":["group-1","group-2"]}'""": "allow",
            """GET /token2 claims='{"groups":"group-2"}'""": "allow",
            """GET /token2 claims='{"groups":["group-1"]}'""": "deny",
            """GET /token2 claims='{"groups":"group-1 group-2"}'""": "deny",
            """GET /token2 claims='{"groups":{"group-2":1}}'""": "deny",
            """GET /token2 claims='{"groups":null}'""": "deny",
            "GET /token2": "deny",
            """GET /token3 claims='{"iss":"i1@x","sub":"sub-1"}'""": "deny",
            """GET /token3 claims='{"iss":"i2@x","sub":"sub-1"}'""": "allow",
            "GET /token3": "allow",
            """GET /any claims='{"iss":"i","sub":"s"}'""": "allow",
            """GET /any claims='{"iss":"i","sub":""}'""": "deny",
            """GET /any claims='{"sub":"s"}'""": "deny",
            "GET /any": "deny",
            """GET /valid claims='{"iss":"i","sub":"s"}'""": "allow",
            "GET /valid": "deny",
            """GET /permission claims='{"permission":"read write"}'""": "allow",
            """GET /permission claims='{"permission":["append"]}'""": "allow",
            """GET /permission claims='{"permission":"read"}'""": "deny",
            """GET /permission claims='{"permission":"rewrite"}'""": "deny",
            """GET /nested claims='{"nested":{"key1":["A","B"]}}'""": "allow",
            """GET /nested claims='{"nested":{"key1":"B"}}'""": "allow",
            """GET /nested claims='{"nested":{"key2":"B"}}'""": "deny",
            """GET /nested claims='{"nested":"B"}'""": "deny",
            """GET /nested claims='{"nested":["key1"]}'""": "deny",
            """GET /nested claims='{"nested[key1]":"B"}'""": "deny",
            """GET /deep claims='{"nested":{"n2":{"key":"A"}}}'""": "allow",
            """GET /deep claims='{"nested":{"key":"A"}}'""": "deny",
            """GET /x/presenter claims='{"azp":"bar"}'""": "allow",
            """GET /x/presenter claims='{"azp":"foo"}'""": "deny",
            """GET /x/audiences claims='{"aud":"foo"}'""": "allow",
            """GET /x/audiences claims='{"aud":["x","foo"]}'""": "allow",
            """GET /x/audiences claims='{"aud":["x","bar"]}'""": "allow",
            """GET /x/audiences claims='{"aud":[]}'""": "deny",
            "GET /x/audiences": "deny",
        },
    ),
    Table(
        "issuer and subject by their ends",
        GENERATOR,
        """
        rules:
        - {to: [{operation: {paths: [/sub]}}], from: [{source: {requestPrincipals: ["https://idp/adm*"]}}]}
        - {to: [{operation: {paths: [/all]}}], from: [{source: {requestPrincipals: ["https://idp/*"]}}]}
        - {to: [{operation: {paths: [/iss]}}], from: [{source: {requestPrincipals: ["*.idp/ann"]}}]}
        - {to: [{operation: {paths: [/end]}}], from: [{source: {requestPrincipals: ["*@corp"]}}]}
        - {to: [{operation: {paths: [/begin]}}], from: [{source: {requestPrincipals: ["corp-*"]}}]}
        - {to: [{operation: {paths: [/who]}}], from: [{source: {requestPrincipals: ["*/ann"]}}]}
        """,
        {
            """GET /sub claims='{"iss":"https://idp","sub":"admin"}'""": "allow",
            """GET /sub claims='{"iss":"https://idp","sub":"ann"}'""": "deny",
            """GET /sub claims='{"iss":"https://idp/adm","sub":"x"}'""": "deny",
            """GET /all claims='{"iss":"https://idp","sub":"x"}'""": "allow",
            """GET /all claims='{"iss":"https://idp","sub":"x/y"}'""": "allow",
            """GET /all claims='{"iss":"https://idp/tenant","sub":"x"}'""": "deny",
            """GET /all claims='{"iss":"https://idp","sub":""}'""": "deny",
            """GET /iss claims='{"iss":"a.idp","sub":"ann"}'""": "allow",
            """GET /iss claims='{"iss":"a.idp","sub":"joann"}'""": "deny",
            """GET /end claims='{"iss":"any","sub":"ann@corp"}'""": "allow",
            """GET /end claims='{"iss":"any@corp","sub":"ann"}'""": "deny",
            """GET /begin claims='{"iss":"corp-1","sub":"ann"}'""": "allow",
            """GET /begin claims='{"iss":"x","sub":"corp-1"}'""": "deny",
            """GET /who claims='{"iss":"any","sub":"ann"}'""": "allow",
            """GET /who claims='{"iss":"","sub":"ann"}'""": "deny",
        },
    ),
    Table(
        "issuer and subject aren't confused",
        OURS,
        'rules: [{from: [{source: {requestPrincipals: ["https://idp/tenant/ann"]}}]}]\n',
        {
            """GET / claims='{"iss":"https://idp/tenant","sub":"ann"}'""": "allow",
            """GET / claims='{"iss":"https://idp","sub":"tenant/ann"}'""": "deny",
        },
    ),
    Table(
        "claims deny, numbers and truth values, too",
        OURS,
        """
        action: DENY
        rules:
        - when: [{key: "request.auth.claims[level]", values: ["5", "true"]}]
        - from: [{source: {requestPrincipals: ["https://evil*"]}}]
        """,
        {
            """GET / claims='{"level":"5"}'""": "deny",
            """GET / claims='{"level":5}'""": "deny",
            """GET / claims='{"level":5.0}'""": "deny",
            """GET / claims='{"level":[4,5]}'""": "deny",
            """GET / claims='{"level":true}'""": "deny",
            """GET / claims='{"level":6}'""": "allow",
            """GET / claims='{"iss":"https://evil.test","sub":"x"}'""": "deny",
            """GET / claims='{"iss":"https://good.test","sub":"x"}'""": "allow",
            "GET /": "allow",
        },
    ),
    Table(
        "numbers don't allow",
        "istio.io: reference/config/security/conditions, claims are texts or lists of texts",
        'rules: [{when: [{key: "request.auth.claims[level]", values: ["5"]}]}]\n',
        {"""GET / claims='{"level":"5"}'""": "allow", """GET / claims='{"level":5}'""": "deny"},
    ),
    Table(
        "nobody without a token",
        "istio.io: tasks/security/authentication/authn-policy, require a valid token",
        'action: DENY\nrules: [{from: [{source: {notRequestPrincipals: ["*"]}}]}]\n',
        {
            "GET /": "deny",
            """GET / claims='{"iss":"i","sub":"s"}'""": "allow",
            """GET / claims='{"iss":"i"}'""": "deny",
        },
    ),
    Table(
        "a claim's name with what names mostly don't have",
        CONDITIONS,
        'rules: [{when: [{key: "request.auth.claims[https://x.test/role]", values: [a]}]}]\n',
        {"""GET / claims='{"https://x.test/role":"a"}'""": "allow", """GET / claims='{"https://x":"a"}'""": "deny"},
    ),
    Table(
        "all conditions must hold",
        API,
        """
        rules:
        - when:
          - {key: "request.headers[x-a]", values: ["1"]}
          - {key: "request.headers[x-b]", values: ["1", "2"], notValues: ["2"]}
        """,
        {"GET / x-a:1 x-b:1": "allow", "GET / x-a:1": "deny", "GET / x-b:1": "deny", "GET / x-a:1 x-b:2": "deny"},
    ),
]
