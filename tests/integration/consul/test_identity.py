"""Identities from the CA of a real Consul: its roots changed, its agent killed, its ACLs on."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from meshlib.errors import IdentityError
from meshlib.identity.certificates import make_material, split
from meshlib.identity.material import Material
from meshlib.identity.sources import open_source
from tests.support.consul import ConsulAgent, StartConsul

PATIENCE = 90.0  # seconds; Consul's agent takes up to half a minute for a new leaf after a change of roots

Watch = AsyncGenerator[Material | IdentityError, None]


@asynccontextmanager
async def watching(agent: ConsulAgent, service: str, token_file: Path | None = None) -> AsyncGenerator[Watch, None]:
    option = f"?token_file={token_file}" if token_file else ""
    source = open_source("consul", service=service, registry=agent.url + option, environ={})
    try:
        async with asyncio.timeout(2 * PATIENCE), aclosing(source.watch()) as watch:
            yield watch
    finally:
        await source.aclose()


async def material(watch: Watch) -> Material:
    """The next material, after whatever errors come before it."""
    while True:
        said = await asyncio.wait_for(anext(watch), PATIENCE)
        if isinstance(said, Material):
            return said


def change_root(agent: ConsulAgent, common_name: str) -> bytes:
    """Have Consul's CA go on with a new root, and give its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    trust_domain = agent.get("/v1/connect/ca/roots")["TrustDomain"]
    now = dt.datetime.now(dt.UTC)
    usage = dict.fromkeys(
        ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"], False
    )
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, decipher_only=False, **usage),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    root = certificate.public_bytes(serialization.Encoding.PEM)
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    config = {"LeafCertTTL": "1h", "PrivateKey": pem.decode(), "RootCert": root.decode()}
    agent.put("/v1/connect/ca/configuration", {"Provider": "consul", "Config": config})
    return root


def is_signed_by(made: Material, root: bytes) -> bool:
    leaf, issuer = x509.load_pem_x509_certificate(made.certificates), x509.load_pem_x509_certificate(root)
    try:
        issuer.public_key().verify(  # type: ignore[call-arg,union-attr]  # an elliptic key
            leaf.signature, leaf.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256())
        )
    except Exception:  # noqa: BLE001 - whatever it is: not signed by it
        return False
    return True


def test_the_id_is_that_of_the_service_in_consul(consul: ConsulAgent) -> None:
    async def run() -> None:
        async with watching(consul, "identity-web") as watch:
            made = await material(watch)
            roots = consul.get("/v1/connect/ca/roots")
            assert made.id.trust_domain == roots["TrustDomain"]
            assert made.id.path.startswith("/ns/default/dc/")
            assert made.id.path.endswith("/svc/identity-web")
            assert made.not_after - made.not_before > 3600

    asyncio.run(run())


def test_two_changes_of_the_root_are_followed_with_all_roots_trusted_meanwhile(start_consul: StartConsul) -> None:
    agent = start_consul()

    async def run() -> None:
        async with watching(agent, "web") as watch, watching(agent, "reviews") as other:
            first, left_behind = await material(watch), await material(other)
            known = [first.roots]
            for name in ("the second root", "the third root"):
                root = await asyncio.to_thread(change_root, agent, name)
                made = await material(watch)
                while root not in made.roots:
                    made = await material(watch)
                assert set(split(made.roots)) == {*known, root}
                # Whom nobody has given a new leaf yet is still accepted.
                make_material("-", left_behind.certificates, left_behind.key, made.roots)
                while not is_signed_by(made, root):
                    made = await material(watch)
                assert made.id == first.id
                # Who hasn't heard of the new root accepts the new leaf.
                make_material("-", made.certificates, made.key, known[-1])
                known.append(root)

    asyncio.run(run())


def test_an_agent_that_is_killed_and_starts_anew_gives_material_again(start_consul: StartConsul) -> None:
    agent = start_consul()

    async def run() -> None:
        async with watching(agent, "web") as watch:
            before = await material(watch)
            agent.kill()
            said = await asyncio.wait_for(anext(watch), PATIENCE)
            assert isinstance(said, IdentityError)
            await asyncio.to_thread(agent.start)
            assert (await material(watch)).id == before.id

    asyncio.run(run())


def test_without_the_right_the_rule_is_named_and_with_it_the_leaf_comes(
    start_consul: StartConsul, tmp_path: Path
) -> None:
    agent = start_consul(acl=True)
    token = tmp_path / "token"
    token.write_text(agent.new_token('service_prefix "" { policy = "read" }'))

    async def run() -> None:
        async with watching(agent, "web", token) as watch:
            said = await asyncio.wait_for(anext(watch), PATIENCE)
            assert isinstance(said, IdentityError)
            assert said.way_out == 'the ACL token needs service "web" { policy = "write" }'
            token.write_text(agent.new_token('service "web" { policy = "write" }'))
            assert (await material(watch)).id.path.endswith("/svc/web")

    asyncio.run(run())
