"""What an address and a name may be."""

import re
from email.message import EmailMessage

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventpact.domain.account import NAME_PATTERN, CreateAccountData, InvalidAccountError, mailbox_of, normalize_email


@pytest.mark.parametrize(
    ("given_address", "kept"),
    [
        ("ada@example.com", "ada@example.com"),
        ("Ada@EXAMPLE.com", "Ada@example.com"),
        ("  ada@example.com ", "ada@example.com"),
        ("ada@XN--BCHER-KVA.example", "ada@xn--bcher-kva.example"),
        ("ada@xn--fa-hia.example", "ada@xn--fa-hia.example"),
        ("o'brien+tag@mail.example.co.uk", "o'brien+tag@mail.example.co.uk"),
        ("a" * 64 + "@example.com", "a" * 64 + "@example.com"),
        ("ada@" + "a" * 63 + ".com", "ada@" + "a" * 63 + ".com"),
        ("Xavier@a.1.com", "Xavier@a.1.com"),
    ],
)
def test_an_address_is_kept_with_its_domain_in_one_form(given_address: str, kept: str) -> None:
    assert normalize_email(given_address) == kept


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ada",
        "@example.net",
        "ada@",
        "ada@localhost",
        "ada@example..com",
        "ada@-example.com",
        "ada@example.com-",
        "ada@127.0.0.1",
        "ada@mail.example.7",
        "ada@example.com.",
        "ada@exa mple.com",
        ".ada@example.com",
        "ada.@example.com",
        "a..b@example.com",
        "a@b@example.com",
        "ada\n@example.com",
        "ada@example.com\r\nBcc: eve@example.com",
        "ada@example.com\n",
        "ada\x00@example.com",
        "ada@example.com\x00",
        "\ud800@example.com",
        "ada@\ud800.com",
        "ä@example.com",
        '"ada b"@example.com',
        "a" * 65 + "@example.com",
        "ada@" + "a" * 64 + ".com",
        "ada@" + "a." * 126 + "com",
        "ada@" + "ü" * 100_000 + ".com",
        "ada@fa\u00df.example",
        "ada@bücher.example",
        "ada@\u212aelvin.example",
        "ada@example\u3002com",
        "=?utf-8?q?eve=40evil.example=2C?=@example.com",
        "=?utf-8?b?ZXZlQGV2aWwuZXhhbXBsZQ==?=@example.com",
        "ada.=?x@example.com",
        "ada?=@example.com",
        "ada@FA\u1e9e.example",
        "ada@\u03c3\u03b1\u03c2.example",
        "ada@exa\u00admple.com",
        "ada@exa\u200dmple.com",
        "ada@example.com\u200b",
    ],
)
def test_what_mail_could_not_be_sent_to_is_refused_without_quoting_it(address: str) -> None:
    with pytest.raises(InvalidAccountError) as caught:
        normalize_email(address)
    assert caught.value.field == "email"
    assert not address or address not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("ada", "an address has the form name@example.com"),
        ("@example.com", "an address has the form name@example.com"),
        ("ada@", "an address has the form name@example.com"),
        ("a" * 65 + "@example.com", "the part before the @ may have 64 characters at most"),
        ("a@b@example.com", "the part before the @ has a character that is not allowed there"),
        ("a b@example.com", "the part before the @ has a character that is not allowed there"),
        ("=?utf-8?q?eve?=@example.com", "the part before the @ may not have =? or ?=, which mark encoded words"),
        ("ada@fa\u00df.example", "write the part after the @ in punycode (xn--…)"),
        ("ada@" + "a" * 64 + ".com", "the part after the @ is no domain name"),
        ("ada@localhost", "the part after the @ is no domain name"),
        ("ada@" + "a" * 255, "an address may have 254 characters at most"),
        (f"ada@{'a.' * 124}com", "an address may have 254 characters at most"),
    ],
)
def test_the_reason_says_what_is_wrong_with_an_address(address: str, reason: str) -> None:
    with pytest.raises(InvalidAccountError) as caught:
        normalize_email(address)
    assert (caught.value.field, str(caught.value)) == ("email", reason)


def test_an_address_may_be_as_long_as_a_mail_server_takes_it() -> None:
    longest = f"{'a' * 64}@{'a.' * 93}com"
    assert len(longest) == 254
    assert normalize_email(longest) == longest
    with pytest.raises(InvalidAccountError, match="254"):
        normalize_email(longest.replace("@", "@a", 1))
    with pytest.raises(InvalidAccountError, match="254"):
        normalize_email("ada@" + "a" * 254)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("  ", "a name has at least one character that is not a space"),
        ("a" * 101, "a name may have 100 characters at most"),
        ("a\x00", "a name may have no control characters"),
    ],
)
def test_the_reason_says_what_is_wrong_with_a_name(name: str, reason: str) -> None:
    with pytest.raises(InvalidAccountError) as caught:
        CreateAccountData(email="ada@example.com", display_name=name)
    assert str(caught.value) == reason


def test_what_is_signed_up_with_is_kept_in_its_one_form() -> None:
    data = CreateAccountData(email=" Ada@EXAMPLE.com ", display_name=" Ada ")
    assert (data.email, data.display_name) == ("Ada@example.com", "Ada")


@given(st.text())
@example("=?utf-8?q?eve=40evil.example=2C?=")
def test_whatever_is_accepted_is_safe_in_a_header_and_stays_as_it_is(text: str) -> None:
    for address in (text, f"{text}@example.com", f"ada@{text}.com"):
        try:
            normal = normalize_email(address)
        except InvalidAccountError:
            continue
        assert normal.isascii()
        assert normal.isprintable()
        assert " " not in normal
        assert len(normal) <= 254
        assert normalize_email(normal) == normal
        message = EmailMessage()
        message["To"] = normal
        assert [each.addr_spec for each in message["To"].addresses] == [normal]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ada@example.com", "ADA@example.com"),
        ("ada@example.com", "ada+shop@example.com"),
        ("ada.lovelace@example.com", "adalovelace@example.com"),
        ("a.d.a+x+y@example.com", "Ada@example.com"),
    ],
)
def test_spellings_that_may_reach_one_mailbox_share_its_limits(one: str, other: str) -> None:
    assert mailbox_of(one) == mailbox_of(other)


def test_addresses_of_other_names_and_domains_have_limits_of_their_own() -> None:
    addresses = ["ada@example.com", "bob@example.com", "ada@example.org", "ada-x@example.com", "+x@example.com"]
    assert len({mailbox_of(address) for address in [*addresses, "+y@example.com"]}) == 6


@pytest.mark.parametrize(
    "name",
    [
        "Ada",
        "José",
        "عمر",
        "李小龍",
        "O\u2019Brien",
        "🦄",
        "\U0001fae8",
        "\u845b\U000e0100",
        "क्\u200dष",
        "a" * 100,
        "\u0958" * 100,
    ],
)
def test_names_of_all_scripts_are_accepted(name: str) -> None:
    assert CreateAccountData(email="ada@example.com", display_name=f" {name} ").display_name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "  ",
        "a\nb",
        "Ada\n",
        "\x1fAda",
        "a\x00",
        "a\x7f",
        "\u202eadA",
        "\u2028",
        "\U000e0041a",
        "\ufeff",
        "a\u00ad",
        "\ud800",
        "\u200d",
        "a" * 101,
    ],
)
def test_names_with_controls_or_without_anything_are_refused(name: str) -> None:
    with pytest.raises(InvalidAccountError) as caught:
        CreateAccountData(email="ada@example.com", display_name=name)
    assert caught.value.field == "display_name"


@given(st.text(max_size=100))
@example("\u200d")
@example("Ada\n")
@example("\u3000\u200c ")
def test_the_pattern_of_a_name_tells_exactly_which_are_accepted(name: str) -> None:
    try:
        CreateAccountData(email="ada@example.com", display_name=name)
    except InvalidAccountError:
        accepted = False
    else:
        accepted = True
    assert accepted == bool(re.fullmatch(NAME_PATTERN.strip("^$"), name))
