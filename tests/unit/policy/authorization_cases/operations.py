"""What is asked for: methods, hosts and ports."""

from __future__ import annotations

from tests.support.authorization import Table

API = "istio/api authorization_policy.proto"
HOSTS = "istio.io: ops/best-practices/security, writing host match policies"
NORMALIZATION = "istio.io: reference/config/security/normalization"
INGRESS = "istio/istio tests/integration/security/authz_test.go, IngressGateway"
OURS = "meshlib"

TABLES = [
    Table(
        "methods",
        API,
        "rules: [{to: [{operation: {methods: [GET, 'P*', '*K']}}]}]\n",
        {
            "GET /": "allow",
            "POST /": "allow",
            "PUT /": "allow",
            "LOCK /": "allow",
            "HEAD /": "deny",
            "DELETE /": "deny",
            "GETS /": "deny",
            "get /": "unsafe",
            "Get /": "unsafe",
        },
    ),
    Table(
        "any method", API, "rules: [{to: [{operation: {methods: ['*']}}]}]\n", {"GET /": "allow", "M-SEARCH /": "allow"}
    ),
    Table(
        "a method is denied",
        NORMALIZATION,
        "action: DENY\nrules: [{to: [{operation: {methods: [DELETE]}}]}]\n",
        {"DELETE /": "deny", "GET /": "allow", "delete /": "unsafe", "Delete /": "unsafe"},
    ),
    Table(
        "all methods but one",
        "istio/istio tests/integration/security/authz_test.go, NotMethod",
        "rules: [{to: [{operation: {notMethods: [PUT]}}]}]\n",
        {"GET /": "allow", "PUT /": "deny", "put /": "unsafe"},
    ),
    Table(
        "methods don't matter where no rule looks at them",
        OURS,
        "rules: [{from: [{source: {notNamespaces: [x]}}]}]\n",
        {"get /": "allow", "GET /": "allow"},
    ),
    Table(
        "a method is denied on a port",
        API,
        "action: DENY\nrules: [{to: [{operation: {methods: [POST], ports: ['8080']}}]}]\n",
        {
            "POST / port=8080": "deny",
            "POST / port=8081": "allow",
            "GET / port=8080": "allow",
            "POST / port=none": "deny",
            "GET / port=none": "allow",
        },
    ),
    Table(
        "ports",
        API,
        "rules: [{to: [{operation: {ports: ['8080', '9090']}}]}]\n",
        {"GET / port=8080": "allow", "GET / port=9090": "allow", "GET / port=80": "deny", "GET / port=none": "deny"},
    ),
    Table(
        "all ports but one",
        "istio/istio tests/integration/security/authz_test.go, NotPort",
        "rules: [{to: [{operation: {notPorts: ['8091']}}]}]\n",
        {"GET / port=8080": "allow", "GET / port=8091": "deny", "GET / port=none": "deny"},
    ),
    Table(
        "all ports but one are denied",
        API,
        "action: DENY\nrules: [{to: [{operation: {notPorts: ['8080']}}]}]\n",
        {"GET / port=8080": "allow", "GET / port=8091": "deny", "GET / port=none": "deny"},
    ),
    Table(
        "hosts are allowed",
        HOSTS,
        'rules: [{to: [{operation: {hosts: [example.com, "example.com:*", "*.example.org", "api.*"]}}]}]\n',
        {
            "GET / host:example.com": "allow",
            "GET / host:EXAMPLE.com": "allow",
            "GET / host:example.com:8080": "allow",
            "GET / host:a.example.org": "allow",
            "GET / host:a.b.Example.Org": "allow",
            "GET / host:api.test": "allow",
            "GET / host:example.org": "deny",
            "GET / host:a.example.org:80": "deny",
            "GET / host:example.com.": "deny",
            "GET / host:evil-example.com": "deny",
            "GET / host:none": "deny",
        },
    ),
    Table(
        "a host without its port isn't one with it",
        HOSTS,
        "rules: [{to: [{operation: {hosts: [example.com]}}]}]\n",
        {"GET / host:example.com": "allow", "GET / host:example.com:80": "deny", "GET / host:Example.Com": "allow"},
    ),
    Table(
        "hosts are denied with any port",
        HOSTS,
        "action: DENY\nrules: [{to: [{operation: {hosts: [example.com, '*.internal', 'prefix.*']}}]}]\n",
        {
            "GET / host:example.com": "deny",
            "GET / host:EXAMPLE.COM": "deny",
            "GET / host:example.com:80": "deny",
            "GET / host:example.com:": "deny",
            "GET / host:example.com.": "deny",
            "GET / host:example.com.:443": "deny",
            "GET / host:a.internal": "deny",
            "GET / host:a.internal:1": "deny",
            "GET / host:A.INTERNAL.": "deny",
            "GET / host:Prefix.test": "deny",
            "GET / host:example.org": "allow",
            "GET / host:internal": "allow",
            "GET / host:none": "allow",
        },
    ),
    Table(
        "the case of a host",
        INGRESS,
        "action: DENY\nrules: [{to: [{operation: {hosts: [Deny.A.Com, '*.suffix.a.com']}}]}]\n",
        {
            "GET / host:deny.a.com": "deny",
            "GET / host:DENY.A.COM": "deny",
            "GET / host:Deny.Suffix.A.Com": "deny",
            "GET / host:www.a.com": "allow",
        },
    ),
    Table(
        "hosts that can be read in two ways",
        OURS,
        "action: DENY\nrules: [{to: [{operation: {hosts: [admin.test]}}]}]\n",
        {
            "GET / host:admin.test": "deny",
            "GET / host:other.test host:admin.test": "unsafe",
            "GET / host:other.test host:other.test": "unsafe",
            "GET / host:other.test,admin.test": "unsafe",
            "GET / 'host:other.test admin.test'": "unsafe",
            "GET / host:user@admin.test": "unsafe",
            "GET / host:other.test/admin.test": "unsafe",
            "GET http://other.test/ host:admin.test": "unsafe",
            "GET http://admin.test/ host:other.test": "unsafe",
            "GET http://admin.test/ host:admin.test": "deny",
            "GET http://ADMIN.test/ host:admin.test": "deny",
            "GET http://other.test/ host:other.test": "allow",
            "GET http://u@other.test/ host:other.test": "unsafe",
            "GET http://other.test:80/ host:other.test": "unsafe",
            "GET / host:[::1]": "allow",
            "GET / host:[::1]:8080": "allow",
            "GET / host:[::1": "unsafe",
            "OPTIONS * host:other.test": "allow",
            "GET ?x host:other.test": "allow",
            "GET ?x host:admin.test": "deny",
        },
    ),
    Table(
        "an address as a host is denied with any port",
        OURS,
        "action: DENY\nrules: [{to: [{operation: {hosts: ['[::1]']}}]}]\n",
        {"GET / host:[::1]": "deny", "GET / host:[::1]:80": "deny", "GET / host:[::2]": "allow"},
    ),
    Table(
        "all hosts but one",
        "istio/istio tests/integration/security/authz_test.go, NotHost",
        "rules: [{to: [{operation: {notHosts: [deny.a.com]}}]}]\n",
        {
            "GET / host:allow.a.com": "allow",
            "GET / host:deny.a.com": "deny",
            "GET / host:DENY.a.com:8080": "deny",
            "GET / host:deny.a.com.": "deny",
            "GET / host:none": "allow",
        },
    ),
    Table(
        "all hosts but one are denied",
        HOSTS,
        "action: DENY\nrules: [{to: [{operation: {notHosts: [a.com]}}]}]\n",
        {
            "GET / host:a.com": "allow",
            "GET / host:a.com:80": "deny",
            "GET / host:b.com": "deny",
            "GET / host:none": "deny",
        },
    ),
    Table(
        "any host", API, "rules: [{to: [{operation: {hosts: ['*']}}]}]\n", {"GET /": "allow", "GET / host:none": "deny"}
    ),
    Table(
        "an example: a host, methods and not a path",
        "istio/api authorization_policy.proto, Operation",
        "rules: [{to: [{operation: {hosts: ['*.example.com'], methods: [GET, HEAD], notPaths: ['/admin*']}}]}]\n",
        {
            "GET /a host:a.example.com": "allow",
            "HEAD /a host:a.example.com": "allow",
            "POST /a host:a.example.com": "deny",
            "GET /admin host:a.example.com": "deny",
            "GET /admin/x host:a.example.com": "deny",
            "GET //admin host:a.example.com": "deny",
            "GET /a host:example.com": "deny",
        },
    ),
    Table(
        "alternatives of to",
        API,
        "rules: [{to: [{operation: {methods: [GET]}}, {operation: {paths: [/open]}}]}]\n",
        {"GET /": "allow", "POST /open": "allow", "GET /open": "allow", "POST /": "deny"},
    ),
    Table(
        "a server name that isn't known is denied",
        OURS,
        "action: DENY\nrules: [{when: [{key: connection.sni, values: [a.test]}]}]\n",
        {"GET / sni=a.test": "deny", "GET / sni=A.test": "deny", "GET / sni=b.test": "allow", "GET /": "deny"},
    ),
    Table(
        "where a request came to, as conditions",
        "istio/istio tests/integration/security/testdata/authz/conditions.yaml.tmpl",
        """
        rules:
        - {to: [{operation: {paths: [/ip]}}], when: [{key: destination.ip, values: [10.0.0.0/8]}]}
        - {to: [{operation: {paths: [/not-ip]}}], when: [{key: destination.ip, notValues: [10.0.0.0/8]}]}
        - {to: [{operation: {paths: [/port]}}], when: [{key: destination.port, values: ["8080"]}]}
        - {to: [{operation: {paths: [/not-port]}}], when: [{key: destination.port, notValues: ["8080"]}]}
        - {to: [{operation: {paths: [/sni]}}], when: [{key: connection.sni, values: ["*.Default.svc"]}]}
        - {to: [{operation: {paths: [/not-sni]}}], when: [{key: connection.sni, notValues: ["*.default.svc"]}]}
        """,
        {
            "GET /ip to=10.0.0.1": "allow",
            "GET /ip to=192.0.2.1": "deny",
            "GET /ip to=": "deny",
            "GET /not-ip to=10.0.0.1": "deny",
            "GET /not-ip to=192.0.2.1": "allow",
            "GET /not-ip to=": "deny",
            "GET /port port=8080": "allow",
            "GET /port port=8081": "deny",
            "GET /port port=none": "deny",
            "GET /not-port port=8081": "allow",
            "GET /not-port port=8080": "deny",
            "GET /not-port port=none": "deny",
            "GET /sni sni=reviews.default.svc": "allow",
            "GET /sni sni=REVIEWS.DEFAULT.SVC": "allow",
            "GET /sni sni=reviews.prod.svc": "deny",
            "GET /sni": "deny",
            "GET /not-sni sni=reviews.default.svc": "deny",
            "GET /not-sni sni=other": "allow",
            "GET /not-sni": "deny",
        },
    ),
]
