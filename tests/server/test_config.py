"""Settings: all mistakes at once, in words; nothing secret in what is shown."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from server import config
from server.config import Rate, SettingsError, load, settings

SECRET = "s" * 32
POSTGRES = {"DATABASE_URL": "postgresql://parley:hunter2@db/parley", "PARLEY_SECRET": SECRET}


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        load(environ)
    return list(raised.value.problems)


def test_an_empty_environment_gives_the_embedded_default() -> None:
    settled = load({})
    assert settled.data == Path(".parley")
    assert (settled.host, settled.port) == ("127.0.0.1", 8080)
    assert (settled.database_url, settled.redis_url, settled.secrets) == (None, None, None)
    assert (settled.origins, settled.trusted_proxy) == ((), False)
    assert (settled.frame_bytes, settled.text_chars, settled.nesting, settled.group_people) == (
        131072,
        10000,
        16,
        500,
    )
    assert (settled.pool_min, settled.pool_max, settled.retention_days) == (5, 25, 30)


def test_the_rates_are_those_of_the_contract() -> None:
    assert load({}).rates == {
        "message_send": Rate(50, 200),
        "offer_moves": Rate(20, 100),
        "writes": Rate(10, 100),
        "reads": Rate(50, 200),
        "connects": Rate(10, 100),
        "handshakes": Rate(1_000, 5_000),
        "login": Rate(0.16667, 10),
        "login_account": Rate(0.08333, 5),
    }


def test_every_setting_accepts_its_own_default_spelled_out() -> None:
    spelled = {setting.name: setting.default for setting in settings() if setting.default}
    assert load(spelled) == load({})


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load({setting.name: " " for setting in settings()}) == load({})


def test_a_rate_may_be_set_or_turned_off() -> None:
    rates = load({"PARLEY_RATE_MESSAGE_SEND": "0.5/1", "PARLEY_RATE_READS": "off"}).rates
    assert rates["message_send"] == Rate(0.5, 1)
    assert rates["reads"] is None


@pytest.mark.parametrize("rate", ["5", "0/5", "5/0", "-1/5", "nan/5", "inf/5", "1e3/5", "5/1.5", "5/5/5", "on"])
def test_a_rate_that_is_none_is_refused(rate: str) -> None:
    (problem,) = problems({"PARLEY_RATE_WRITES": rate})
    assert problem.startswith(f"PARLEY_RATE_WRITES={rate!r} ")
    assert "10/100" in problem


def test_all_bad_and_unknown_settings_are_named_at_once() -> None:
    found = problems(
        {
            "PARLEY_PROT": "8081",
            "PARLEY_COLOUR_OF_THE_DOOR": "green",
            "PARLEY_PORT": "80a",
            "PARLEY_LOG": "xml",
            "DATABASE_URL": "mysql://db/parley",
            "REDIS_URL": "localhost:6379",
            "PARLEY_POOL_MIN": "50",
        }
    )
    assert len(found) == 8
    text = str(SettingsError(found))
    assert "PARLEY_PROT is not a setting; did you mean PARLEY_PORT?" in text
    assert "PARLEY_COLOUR_OF_THE_DOOR is not a setting; take it out" in text
    assert "PARLEY_PORT='80a' is not a whole number; allowed: 0 to 65535 (default: 8080)" in text
    assert "PARLEY_LOG='xml' is none of them; allowed: auto, json, console (default: auto)" in text
    assert "DATABASE_URL begins with mysql://; allowed: a URL that begins with postgresql:// or postgres://" in text
    assert "REDIS_URL is not a URL; allowed: a URL that begins with redis:// or rediss:// or unix://" in text
    assert "PARLEY_SECRET is missing" in text
    assert "PARLEY_POOL_MIN=50 is above PARLEY_POOL_MAX=25" in text


def test_a_misspelt_rate_is_told_its_right_name() -> None:
    (problem,) = problems({"PARLEY_RATE_MESAGE_SEND": "1/1"})
    assert problem.endswith("did you mean PARLEY_RATE_MESSAGE_SEND?")


def test_other_programs_variables_are_none_of_its_business() -> None:
    assert load({"PATH": "/bin", "POSTGRES_PASSWORD": "x", "LANG": "C"}) == load({})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PARLEY_PORT", "65536"),
        ("PARLEY_PORT", "8_080"),
        ("PARLEY_PORT", "٨٠"),
        ("PARLEY_PORT", "+80"),
        ("PARLEY_NESTING", "1"),
        ("PARLEY_ACCESS_TTL_S", "0"),
        ("PARLEY_TRUSTED_PROXY", "maybe"),
        ("PARLEY_HOST", "127.0.0.1, ::1"),
        ("PARLEY_DATA", "~/parley"),
        ("PARLEY_DATA", "bad\udcff"),
        ("PARLEY_INSTANCE", "a b"),
        ("PARLEY_INSTANCE", "x" * 65),
        ("PARLEY_ORIGINS", "example.org"),
        ("PARLEY_ORIGINS", "https://example.org/"),
        ("PARLEY_ORIGINS", "*,https://example.org"),
        ("PARLEY_ORIGINS", "https://a.example,,https://b.example"),
    ],
)
def test_a_value_out_of_bounds_or_form_is_refused(name: str, value: str) -> None:
    (problem,) = problems({name: value})
    assert problem.startswith(f"{name}=")
    assert "allowed: " in problem


def test_lists_are_split_and_compared_in_lower_case() -> None:
    settled = load({"PARLEY_ORIGINS": " https://A.example , capacitor://localhost,http://[::1]:3000"})
    assert settled.origins == ("https://a.example", "capacitor://localhost", "http://[::1]:3000")
    assert load({"PARLEY_ORIGINS": "*"}).origins == ("*",)


def test_with_a_database_url_a_missing_secret_is_refused() -> None:
    (problem,) = problems({"DATABASE_URL": POSTGRES["DATABASE_URL"]})
    assert problem.startswith("PARLEY_SECRET is missing")
    assert load(POSTGRES).secrets == (SECRET,)


def test_secrets_rotate_and_each_is_long_enough() -> None:
    assert load({"PARLEY_SECRET": f"{'n' * 40}, {SECRET}"}).secrets == ("n" * 40, SECRET)
    (problem,) = problems(POSTGRES | {"PARLEY_SECRET": f"{SECRET},short-one"})
    assert "number 2 of 2 has 9 bytes" in problem
    (problem,) = problems({"PARLEY_SECRET": f"{SECRET},"})
    assert "number 2 of 2 has 0 bytes" in problem


def test_no_secret_and_no_password_is_shown() -> None:
    settled = load(POSTGRES | {"REDIS_URL": "rediss://:hun/ter@2@cache/0", "PARLEY_SECRET": f"{SECRET},{'t' * 40}"})
    shown = repr(settled) + str(settled.shown())
    assert not any(secret in shown for secret in ("hunter2", "ter@2", SECRET, "t" * 40))
    assert "postgresql://parley:***@db/parley" in shown
    masked = load(POSTGRES | {"DATABASE_URL": "postgres:///parley?host=/run&password=hunter2&user=x"})
    assert "hunter2" not in repr(masked)


@pytest.mark.parametrize("url", ["hunter2", "parley:hunter2@db", "hunter2://db", "postgres://hunter2 x@db"])
def test_a_refused_url_is_not_repeated(url: str) -> None:
    text = "".join(problems({"REDIS_URL": url, "PARLEY_SECRET": "hunter2"}))
    assert "hunter2 " not in text
    assert "hunter2@" not in text


def test_the_instance_is_named_by_host_and_process() -> None:
    name = load({}).instance
    assert name.rpartition("-")[2].isdigit()
    assert load({"PARLEY_INSTANCE": "blue-1"}).instance == "blue-1"


def test_the_table_says_everything_about_every_setting() -> None:
    table = settings()
    assert len({setting.name for setting in table}) == len(table)
    assert all(setting.unit and setting.about and setting.allowed and setting.shown_default for setting in table)
    assert set(load({}).shown()) == {setting.name for setting in table}


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load({}).port = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        load({}).rates["reads"] = None  # type: ignore[index]
    assert config.RATES


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"PARLEY_PAYMENTS": "stripe"}, "PARLEY_STRIPE_KEY is missing"),
        ({"PARLEY_STRIPE_KEY": "sk_1"}, "PARLEY_STRIPE_WEBHOOK_SECRET is missing"),
        ({"PARLEY_STRIPE_URL": "ftp://example.org"}, "PARLEY_STRIPE_URL"),
        ({"PARLEY_STRIPE_KEY": "sk 1", "PARLEY_STRIPE_WEBHOOK_SECRET": "whsec"}, "has a space in it"),
    ],
)
def test_stripe_is_set_whole_or_not_at_all(environ: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError) as error:
        load(environ)
    [told] = error.value.problems
    assert problem in told
    assert "sk 1" not in told


def test_what_stripe_knows_us_by_is_not_shown() -> None:
    config = load({"PARLEY_STRIPE_KEY": "sk_hidden", "PARLEY_STRIPE_WEBHOOK_SECRET": "whsec_hidden"})
    assert (config.stripe_key, config.stripe_webhook_secret) == ("sk_hidden", "whsec_hidden")
    assert "_hidden" not in repr(config)
    assert config.shown()["PARLEY_STRIPE_KEY"] == "(kept hidden)"
