"""Which entries of a ConfigMap are public keys, and how they get into files."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from sessionpools.gateway import files
from sessionpools.gateway.config import Files
from sessionpools.gateway.keys import digest, of_config_map, published
from support.tokens import key

GOOD = key("good")
PKCS1 = GOOD.private.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode()
PRIVATE = GOOD.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
ELLIPTIC = generate_private_key(SECP256R1()).public_key()
ELLIPTIC_PEM = ELLIPTIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize("kid", ["a", "-", "_x", "A-1_b", "0" * 64])
def test_a_public_key_is_taken(kid: str) -> None:
    assert published({f"{kid}.pem": GOOD.pem}).keys == {kid: GOOD.pem}


@pytest.mark.parametrize("text", [PKCS1, f"\n# a comment\n{GOOD.pem}\n", GOOD.pem.replace("\n", "\r\n")])
def test_other_forms_of_it_reach_haproxy_in_the_one_that_it_reads(text: str) -> None:
    found = published({"kid.pem": text})
    assert (found.keys, found.refused) == ({"kid": GOOD.pem}, ())


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../a", "a.b", "é", "0" * 65, "a\n", "a'"])
def test_a_name_that_is_not_fit_for_a_file_is_refused(name: str) -> None:
    found = published({f"{name}.pem": GOOD.pem})
    assert found.keys == {}
    assert "name it KID.pem" in found.refused[0]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no public key"),
        ("no key", "no public key"),
        (GOOD.pem[:200], "no public key"),
        (PRIVATE, "no public key"),
        (ELLIPTIC_PEM, "use an RSA key"),
        (key("weak", 1024).pem, "has 1024 bits"),
    ],
)
def test_what_is_no_rsa_key_of_enough_bits_is_refused_by_name(text: str, why: str) -> None:
    found = published({"bad.pem": text, "good.pem": GOOD.pem})
    assert list(found.keys) == ["good"]
    (said,) = found.refused
    assert said.startswith("bad.pem: ")
    assert why in said


def test_what_is_not_named_pem_is_nothing_to_do_with_keys() -> None:
    found = of_config_map({"data": {"jwks.json": "{}", "good.pem": GOOD.pem}})
    assert (list(found.keys), found.refused) == (["good"], ())
    assert of_config_map({}).keys == {}


def test_a_digest_tells_one_set_of_keys_from_another() -> None:
    sets = [{}, {"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": "1", "b": "1"}]
    assert len({digest(keys) for keys in sets}) == len(sets)
    assert digest({}) == ""
    assert digest({"a": "1", "b": "2"}) == digest({"b": "2", "a": "1"})


def test_key_files_are_what_the_configuration_names(tmp_path: Path) -> None:
    other = key("other")
    assert files.write(tmp_path, Files("", "", {"good": GOOD.pem, "other": other.pem}))
    assert files.load_keys(tmp_path) == {"good": GOOD.pem, "other": other.pem}
    assert not files.write(tmp_path, Files("", "", {"good": GOOD.pem, "other": other.pem}))
    assert files.write(tmp_path, Files("", "", {"other": other.pem}))
    assert [file.name for file in (tmp_path / "keys").iterdir()] == ["other.pem"]


def test_without_files_there_are_no_keys(tmp_path: Path) -> None:
    assert files.load_keys(tmp_path) == {}
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "broken.pem").write_text("half a ke")
    assert files.load_keys(tmp_path) == {}
