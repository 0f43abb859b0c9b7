"""Who calls."""

from __future__ import annotations

from tests.support.authorization import Table

API = "istio/api authorization_policy.proto"
CONDITIONS = "istio.io: reference/config/security/conditions"
GENERATOR = "istio/istio pilot/pkg/security/authz/model/generator.go"
ALIASES = "istio/istio pilot/pkg/security/trustdomain/bundle.go"
OURS = "meshlib"

SLEEP = "from=ns/default/sa/sleep"
CONSUL = "from=ns/default/dc/dc1/svc/web"

TABLES = [
    Table(
        "an example of sources, operations and a condition",
        API,
        """
        rules:
        - from:
          - source: {principals: [cluster.local/ns/default/sa/sleep]}
          - source: {namespaces: [test]}
          to:
          - operation: {methods: [GET], paths: ["/info*"]}
          - operation: {methods: [POST], paths: [/data]}
          when:
          - {key: "request.auth.claims[iss]", values: ["https://accounts.google.com"]}
        """,
        {
            f'GET /info {SLEEP} claims=\'{{"iss":"https://accounts.google.com"}}\'': "allow",
            f'GET /info/1 {SLEEP} claims=\'{{"iss":"https://accounts.google.com"}}\'': "allow",
            f'POST /data {SLEEP} claims=\'{{"iss":"https://accounts.google.com"}}\'': "allow",
            'GET /info from=ns/test/sa/x claims=\'{"iss":"https://accounts.google.com"}\'': "allow",
            f'POST /info {SLEEP} claims=\'{{"iss":"https://accounts.google.com"}}\'': "deny",
            f'GET /data {SLEEP} claims=\'{{"iss":"https://accounts.google.com"}}\'': "deny",
            f'POST /data/1 {SLEEP} claims=\'{{"iss":"https://accounts.google.com"}}\'': "deny",
            'GET /info from=ns/default/sa/other claims=\'{"iss":"https://accounts.google.com"}\'': "deny",
            'GET /info claims=\'{"iss":"https://accounts.google.com"}\'': "deny",
            f"GET /info {SLEEP}": "deny",
            f'GET /info {SLEEP} claims=\'{{"iss":"https://evil.example"}}\'': "deny",
            f"GET /info {SLEEP} claims='{{}}'": "deny",
        },
    ),
    Table(
        "requests of a namespace are denied",
        API,
        "action: DENY\nrules: [{from: [{source: {namespaces: [dev]}}], to: [{operation: {methods: [POST]}}]}]\n",
        {
            "POST / from=ns/dev/sa/x": "deny",
            "GET / from=ns/dev/sa/x": "allow",
            "POST / from=ns/develop/sa/x": "allow",
            "POST / from=ns/prod/sa/dev": "allow",
            "POST /": "allow",
            "POST / from=ns/dev/dc/dc1/svc/x": "deny",
        },
    ),
    Table(
        "a principal, exactly",
        API,
        "rules: [{from: [{source: {principals: [mesh.test/ns/default/sa/sleep]}}]}]\n",
        {
            f"GET / {SLEEP}": "allow",
            "GET / from=ns/default/sa/sleepy": "deny",
            "GET / from=ns/default/sa/slee": "deny",
            "GET / from=ns/default/sa/Sleep": "deny",
            "GET / from=x/ns/default/sa/sleep": "deny",
            "GET /": "deny",
        },
    ),
    Table(
        "cluster.local means our own trust domain",
        ALIASES,
        "rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/sleep]}}]}]\n",
        {f"GET / {SLEEP}": "allow", "GET / from=ns/default/sa/other": "deny", "GET /": "deny"},
    ),
    Table(
        "an alias means our own trust domain",
        ALIASES,
        "rules: [{from: [{source: {principals: [old.test/ns/default/sa/sleep]}}]}]\n",
        {f"GET / {SLEEP}": "allow", "GET / from=ns/default/sa/other": "deny"},
        aliases=("old.test",),
    ),
    Table(
        "another trust domain is nobody's",
        ALIASES,
        "rules: [{from: [{source: {principals: [old.test/ns/default/sa/sleep]}}]}]\n",
        {f"GET / {SLEEP}": "deny", "GET /": "deny"},
    ),
    Table(
        "an alias denies, too",
        ALIASES,
        "action: DENY\nrules: [{from: [{source: {principals: ['old.test/ns/default/*', '*td/ns/x/sa/y']}}]}]\n",
        {f"GET / {SLEEP}": "deny", "GET / from=ns/x/sa/y": "deny", "GET / from=ns/x/sa/z": "allow", "GET /": "allow"},
        aliases=("old.test", "new-td"),
    ),
    Table(
        "a principal by its beginning",
        API,
        'rules: [{from: [{source: {principals: ["mesh.test/ns/default/*"]}}]}]\n',
        {f"GET / {SLEEP}": "allow", f"GET / {CONSUL}": "allow", "GET / from=ns/prod/sa/sleep": "deny", "GET /": "deny"},
    ),
    Table(
        "a principal by its beginning, in our own trust domain",
        ALIASES,
        'rules: [{from: [{source: {principals: ["cluster.local/ns/default/*"]}}]}]\n',
        {f"GET / {SLEEP}": "allow", "GET / from=ns/prod/sa/sleep": "deny", "GET /": "deny"},
    ),
    Table(
        "any principal of our own trust domain",
        ALIASES,
        'rules: [{from: [{source: {principals: ["cluster.local/*"]}}]}]\n',
        {f"GET / {SLEEP}": "allow", f"GET / {CONSUL}": "allow", "GET /": "deny"},
    ),
    Table(
        "a principal by its end",
        API,
        'rules: [{from: [{source: {principals: ["*/sa/sleep"]}}]}]\n',
        {
            f"GET / {SLEEP}": "allow",
            "GET / from=ns/prod/sa/sleep": "allow",
            "GET / from=ns/prod/sa/nosleep": "deny",
            "GET / from=ns/prod/sa/sleep/more": "deny",
            "GET /": "deny",
        },
    ),
    Table(
        "any principal",
        API,
        'rules: [{from: [{source: {principals: ["*"]}}]}]\n',
        {f"GET / {SLEEP}": "allow", f"GET / {CONSUL}": "allow", "GET / from=x": "allow", "GET /": "deny"},
    ),
    Table(
        "a star in the middle is a star",
        GENERATOR,
        'rules: [{from: [{source: {principals: ["cluster.local/*/sa/sleep"]}}]}]\n',
        {f"GET / {SLEEP}": "deny", "GET /": "deny"},
    ),
    Table(
        "nobody without an identity",
        "istio.io: tasks/security/authorization/authz-deny, notPrincipals",
        'action: DENY\nrules: [{from: [{source: {notPrincipals: ["*"]}}]}]\n',
        {f"GET / {SLEEP}": "allow", "GET /": "deny"},
    ),
    Table(
        "everybody but one",
        API,
        "rules: [{from: [{source: {notPrincipals: [cluster.local/ns/default/sa/sleep]}}]}]\n",
        {f"GET / {SLEEP}": "deny", "GET / from=ns/default/sa/other": "allow", "GET /": "allow"},
    ),
    Table(
        "both a value and a negation",
        API,
        """
        rules:
        - from:
          - source: {principals: ["cluster.local/ns/default/*"], notPrincipals: ["*/sa/sleep"]}
        """,
        {
            "GET / from=ns/default/sa/web": "allow",
            f"GET / {SLEEP}": "deny",
            "GET / from=ns/prod/sa/web": "deny",
            "GET /": "deny",
        },
    ),
    Table(
        "namespaces",
        GENERATOR,
        'rules: [{from: [{source: {namespaces: [default, "prod-*", "*-test"]}}]}]\n',
        {
            f"GET / {SLEEP}": "allow",
            f"GET / {CONSUL}": "allow",
            "GET / from=ns/prod-1/sa/x": "allow",
            "GET / from=ns/a-test/sa/x": "allow",
            "GET / from=ns/prod/sa/x": "deny",
            "GET / from=ns/Default/sa/x": "deny",
            "GET / from=sa/default": "deny",
            "GET / from=default": "deny",
            "GET /": "deny",
        },
    ),
    Table(
        "namespace and service account with more around them",
        GENERATOR,
        """
        action: DENY
        rules: [{from: [{source: {namespaces: [dev]}}, {source: {serviceAccounts: [prod/web]}}]}]
        """,
        {
            "GET / from=region/eu/ns/dev/sa/x": "deny",
            "GET / from=ns/dev/team/a/sa/x/more": "deny",
            "GET / from=ns/prod/team/a/sa/web/more": "deny",
            "GET / from=ns/prod/team/a/sa/webs": "allow",
            "GET / from=ns/prod/dc/sa/svc/web": "deny",
            "GET / from=sa/web/ns/prod/x": "allow",
            "GET / from=ns/dev": "allow",
        },
    ),
    Table(
        "stars within a namespace",
        GENERATOR,
        'rules: [{from: [{source: {namespaces: ["a*b*c", "*mid*"]}}]}]\n',
        {
            "GET / from=ns/abc/sa/x": "allow",
            "GET / from=ns/axbyc/sa/x": "allow",
            "GET / from=ns/amidst/sa/x": "allow",
            "GET / from=ns/ac/sa/x": "deny",
            "GET / from=ns/acb/sa/x": "deny",
            "GET /": "deny",
        },
    ),
    Table(
        "any namespace",
        GENERATOR,
        'rules: [{from: [{source: {namespaces: ["*"]}}]}]\n',
        {f"GET / {SLEEP}": "allow", "GET / from=web": "deny", "GET /": "deny"},
    ),
    Table(
        "not a namespace",
        API,
        "action: DENY\nrules: [{from: [{source: {notNamespaces: [default]}}]}]\n",
        {f"GET / {SLEEP}": "allow", "GET / from=ns/prod/sa/x": "deny", "GET /": "deny", "GET / from=web": "deny"},
    ),
    Table(
        "all but a namespace",
        API,
        "rules: [{from: [{source: {notNamespaces: [dev]}}]}]\n",
        {"GET / from=ns/dev/sa/x": "deny", f"GET / {SLEEP}": "allow", "GET /": "allow"},
    ),
    Table(
        "service accounts, of this namespace without one",
        "istio/api authorization_policy.proto, service_accounts",
        "rules: [{from: [{source: {serviceAccounts: [sleep, prod/web]}}]}]\n",
        {
            f"GET / {SLEEP}": "allow",
            "GET / from=ns/prod/sa/web": "allow",
            "GET / from=ns/prod/sa/sleep": "deny",
            "GET / from=ns/default/sa/web": "deny",
            "GET / from=ns/default/sa/sleepy": "deny",
            "GET /": "deny",
        },
    ),
    Table(
        "a service of Consul's is a service account",
        OURS,
        "rules: [{from: [{source: {serviceAccounts: [web]}}]}]\n",
        {
            f"GET / {CONSUL}": "allow",
            "GET / from=ns/default/dc/dc2/svc/web": "allow",
            "GET / from=ns/default/dc/dc1/svc/other": "deny",
            "GET / from=ns/prod/dc/dc1/svc/web": "deny",
        },
    ),
    Table(
        "not a service account",
        API,
        "action: DENY\nrules: [{from: [{source: {notServiceAccounts: [sleep]}}]}]\n",
        {f"GET / {SLEEP}": "allow", "GET / from=ns/default/sa/x": "deny", "GET /": "deny"},
    ),
    Table(
        "alternatives of from",
        API,
        "rules: [{from: [{source: {namespaces: [a]}}, {source: {namespaces: [b], ipBlocks: [10.0.0.0/8]}}]}]\n",
        {
            "GET / from=ns/a/sa/x": "allow",
            "GET / from=ns/b/sa/x ip=10.1.2.3": "allow",
            "GET / from=ns/b/sa/x": "deny",
            "GET / ip=10.1.2.3": "deny",
        },
    ),
    Table(
        "addresses and blocks",
        "istio/api authorization_policy.proto, ip_blocks",
        'rules: [{from: [{source: {ipBlocks: [203.0.113.4, 10.0.0.0/8, "2001:db8::/32", "::1"]}}]}]\n',
        {
            "GET / ip=203.0.113.4": "allow",
            "GET / ip=203.0.113.5": "deny",
            "GET / ip=10.0.0.0": "allow",
            "GET / ip=10.255.255.255": "allow",
            "GET / ip=11.0.0.0": "deny",
            "GET / ip=9.255.255.255": "deny",
            "GET / ip=2001:db8::1": "allow",
            "GET / ip=2001:db9::1": "deny",
            "GET / ip=::1": "allow",
            "GET / ip=::ffff:10.1.1.1": "allow",
            "GET / ip=::10.1.1.1": "deny",
            "GET / ip=": "deny",
            "GET / ip=rubbish": "deny",
        },
    ),
    Table(
        "a block is what it masks",
        GENERATOR,
        "rules: [{from: [{source: {ipBlocks: [10.1.2.3/16, 0.0.0.0/1]}}]}]\n",
        {"GET / ip=10.1.255.1": "allow", "GET / ip=127.9.9.9": "allow", "GET / ip=128.0.0.1": "deny"},
    ),
    Table(
        "every address of one family",
        GENERATOR,
        "rules: [{from: [{source: {ipBlocks: [0.0.0.0/0]}}]}]\n",
        {"GET / ip=1.2.3.4": "allow", "GET / ip=2001:db8::1": "deny", "GET / ip=": "deny"},
    ),
    Table(
        "addresses are denied; one that isn't known, too",
        OURS,
        "action: DENY\nrules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]\n",
        {
            "GET / ip=10.0.0.1": "deny",
            "GET / ip=192.0.2.1": "allow",
            "GET / ip=": "deny",
            "GET / ip=::ffff:a00:1": "deny",
        },
    ),
    Table(
        "all addresses but some",
        API,
        "rules: [{from: [{source: {notIpBlocks: [203.0.113.4]}}]}]\n",
        {"GET / ip=203.0.113.4": "deny", "GET / ip=203.0.113.5": "allow", "GET / ip=": "deny"},
    ),
    Table(
        "all addresses but some are denied",
        API,
        "action: DENY\nrules: [{from: [{source: {notIpBlocks: [10.0.0.0/8]}}]}]\n",
        {"GET / ip=10.0.0.1": "allow", "GET / ip=203.0.113.5": "deny", "GET / ip=": "deny"},
    ),
    Table(
        "whom a trusted hop speaks for",
        "istio/api authorization_policy.proto, remote_ip_blocks",
        "rules: [{from: [{source: {remoteIpBlocks: [10.0.0.0/8], notRemoteIpBlocks: [10.9.0.0/16]}}]}]\n",
        {
            "GET / ip=192.0.2.1 remote=10.1.1.1": "allow",
            "GET / ip=10.1.1.1 remote=192.0.2.1": "deny",
            "GET / ip=10.1.1.1": "allow",
            "GET / remote=10.9.1.1": "deny",
        },
    ),
    Table(
        "an example: principals, namespaces and an address at once",
        "istio/api authorization_policy.proto, Source",
        "rules: [{from: [{source: {principals: ['*/sa/admin', '*/sa/dev'], namespaces: [prod, test], "
        "notIpBlocks: [203.0.113.4]}}]}]\n",
        {
            "GET / from=ns/prod/sa/admin": "allow",
            "GET / from=ns/test/sa/dev": "allow",
            "GET / from=ns/prod/sa/web": "deny",
            "GET / from=ns/dev/sa/admin": "deny",
            "GET / from=ns/prod/sa/admin ip=203.0.113.4": "deny",
        },
    ),
    Table(
        "the same attributes as conditions",
        CONDITIONS,
        """
        rules:
        - when:
          - {key: source.principal, values: [cluster.local/ns/default/sa/sleep]}
          - {key: source.namespace, values: [default]}
          - {key: source.serviceAccount, values: [sleep]}
          - {key: source.ip, values: [10.0.0.0/8]}
          - {key: remote.ip, values: [10.0.0.0/8], notValues: [10.0.0.2]}
        """,
        {
            f"GET / {SLEEP} ip=10.0.0.1": "allow",
            f"GET / {SLEEP} ip=10.0.0.2": "deny",
            f"GET / {SLEEP} ip=192.0.2.1": "deny",
            f"GET / {SLEEP} ip=10.0.0.1 remote=192.0.2.1": "deny",
            "GET / from=ns/default/sa/other ip=10.0.0.1": "deny",
            "GET / ip=10.0.0.1": "deny",
        },
    ),
]
