"""`[[watchers]]` and `[[telegram]]` in lobu.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.config.errors import ConfigError
from supervisor.config.load import load_settings
from supervisor.config.settings import Settings
from supervisor.logs import mask
from supervisor.singletons.schedule import Schedule, Watcher
from supervisor.singletons.telegram.bot import Bot

BASE = """[workers.w]
command = ["sh"]
[[agents]]
id = "a"
worker = "w"
[[agents]]
id = "own"
worker = "w"
owner = "ann"
"""
TOKEN = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0"
WATCHER = '[[watchers]]\nid = "r"\ncron = "0 9 * * *"\ncontent = "report"\n'
TELEGRAM = '[[telegram]]\ntoken_env = "TG"\nallowed_chats = [42, -100]\n'


def load(folder: Path, text: str, **environ: str) -> Settings:
    (folder / "lobu.toml").write_text(BASE + text)
    return load_settings(folder / "lobu.toml", data_dir=folder, environ=environ)


def test_watchers(tmp_path: Path) -> None:
    more = (
        '[[watchers]]\nid = "s"\nagent = "a"\ncron = "0  9 * * mon"\ntimezone = "Asia/Tokyo"\n'
        'content = "x"\nenabled = false\n'
    )
    assert load(tmp_path, WATCHER + more).watchers == (
        Watcher("r", "a", Schedule("0 9 * * *", "UTC"), "report"),
        Watcher("s", "a", Schedule("0 9 * * mon", "Asia/Tokyo"), "x", enabled=False),
    )
    assert load(tmp_path, "").watchers == ()


def test_telegram(tmp_path: Path) -> None:
    [bot] = load(tmp_path, TELEGRAM, TG=TOKEN).telegram
    assert bot == Bot(TOKEN, "TG", "a", frozenset({42, -100}))
    assert bot.id == 110201543
    more = 'api_url = "http://127.0.0.1:8081/"\npoll_seconds = 7\nagent = "a"\n'
    [bot] = load(tmp_path, TELEGRAM.replace("[42, -100]", '"anybody"') + more, TG=TOKEN).telegram
    assert (bot.allowed_chats, bot.api_url, bot.poll_seconds) == (None, "http://127.0.0.1:8081", 7)


def test_a_token_may_be_in_the_env_file_and_most_commands_need_none(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"TG={TOKEN}\n")
    assert load(tmp_path, TELEGRAM).telegram[0].token == TOKEN
    (tmp_path / ".env").unlink()
    assert load(tmp_path, TELEGRAM).telegram[0].token == ""


def test_no_repr_and_no_log_line_shows_a_token(tmp_path: Path) -> None:
    settings = load(tmp_path, TELEGRAM, TG=TOKEN)
    assert TOKEN not in repr(settings)
    assert TOKEN not in mask(f"POST https://api.telegram.org/bot{TOKEN}/getMe and {TOKEN}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (WATCHER.replace('id = "r"\n', ""), "`watchers[0]` has no id"),
        (WATCHER.replace('"r"', '"r r"'), "`watchers[0].id` must be letters"),
        (WATCHER + WATCHER, "`watchers[1].id` is 'r', which another watcher has already"),
        (WATCHER.replace("0 9", "0 99"), "lobu.toml:12: `watchers[0].cron` is no cron expression (Bad hour)"),
        (WATCHER.replace('cron = "0 9 * * *"\n', ""), "has no cron expression"),
        (WATCHER.replace("cron =", "corn ="), "`watchers[0].corn` is not a known key; did you mean `cron`?"),
        (WATCHER.replace('content = "report"\n', ""), "has no content"),
        (WATCHER + 'timezone = "Nowhere"\n', "`watchers[0].timezone` names a time zone"),
        (WATCHER + 'agent = "b"\n', "`watchers[0].agent` is 'b', which no [[agents]] table defines"),
        (WATCHER + 'agent = "own"\n', "one user's own"),
        (WATCHER + "every = 5\n", "`watchers[0].every` is not a known key"),
        (TELEGRAM.replace('token_env = "TG"\n', ""), "`telegram[0]` has no token_env"),
        (TELEGRAM.replace('"TG"', f'"{TOKEN}"'), "must be the name of an environment variable"),
        (TELEGRAM.replace("allowed_chats = [42, -100]\n", ""), "has no allowed_chats"),
        (TELEGRAM.replace("-100", '"x"'), "`telegram[0].allowed_chats[1]` must be a chat's id"),
        (TELEGRAM.replace("[42, -100]", '"all"'), "must be a list of chat ids"),
        (TELEGRAM + 'api_url = "http://api.example.com"\n', "must begin with https"),
        (TELEGRAM + 'api_url = "ftp://x"\n', "must be like https://api.telegram.org"),
        (TELEGRAM + "poll_seconds = 51\n", "must be from 1 to 50"),
    ],
)
def test_refusals(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, TG=TOKEN)
    assert message in str(caught.value)


def test_what_is_no_token_is_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no bot token") as caught:
        load(tmp_path, TELEGRAM, TG="sesame")
    assert "sesame" not in str(caught.value)
