"""What is wrong with a command line that does not compose, in words, with what was probably meant."""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf

from uar.errors import UserError
from uar.launch.command_options import Taken, choices_of, compose, options_of
from uar.launch.one_line import about_config
from uar.launch.override_text import SEARCHPATH, overrides_of

HELP = "--help lists the options and their choices"
MISSING = "???"  # as OmegaConf spells it
NEAR, SURE = 0.6, 0.85  # likeness of two words by difflib, 1 where they are the same
MOST = 3  # suggestions
QUOTES = "text with any of ()[]{}:=, or a space stands in quotes of its own, such as 'title=\"Labels: people or an LLM\"'"


def in_words(error: BaseException, config_name: str, words: Sequence[str]) -> str:
    """Of an error of composing a command. `words`: its command line."""
    overrides = overrides_of(words)
    parsed = []
    for word in overrides:
        try:
            parsed.append(OverridesParser.create().parse_override(word))
        except (HydraException, OverrideParseException):
            return _unreadable(word)
    own_folders = any(one.key_or_group == SEARCHPATH for one in parsed)
    known = [one for one in parsed if not own_folders or not _group(one)]
    unknown = next(filter(None, map(_unknown_choice, known)), None) or _unknown_option(config_name, parsed)
    return unknown or _missing_of(config_name, overrides) or about_config(error)


def check_given(taken: Taken) -> None:
    """UserError naming the options that have no value and need one: those of the command and of the groups' choices."""
    if MISSING not in OmegaConf.to_yaml(taken.cfg):
        return
    missing = [o for o in options_of(taken) if o.value == MISSING and (not o.place or o.place in taken.packages)]
    if missing:
        needed = ", ".join(f"{option.name}= is needed" + (f" ({option.meaning})" * bool(option.meaning)) for option in missing)
        raise UserError(f"{needed}; {HELP}")


def _unreadable(word: str) -> str:
    _, equals, _ = word.partition("=")
    if not equals:
        return f"{word!r} is no option: OPTION=VALUE is needed; {HELP}"
    return f"{word!r} cannot be read: {QUOTES}; {HELP}"


def _group(override: Override) -> list[str]:
    """The choices of the group that an override names; none where it names an option."""
    return choices_of(override.key_or_group)


def _unknown_choice(override: Override) -> str | None:
    allowed = _group(override)
    values = list(_values(override)) if allowed else []
    wrong = next((v for v in values if isinstance(v, str) and v not in allowed and not override.is_delete()), None)
    if wrong is None:
        return None
    key = override.get_key_element().lstrip("+~")
    return f"{key}={wrong}: no such choice{_meant(wrong, allowed)} Allowed: {', '.join(allowed)}"


def _values(override: Override) -> Iterator[object]:
    if override.is_sweep_override():
        yield from override.sweep_string_iterator()
    else:
        yield override.value()


def _unknown_option(config_name: str, parsed: Sequence[Override]) -> str | None:
    chosen = [one for one in parsed if _group(one) or one.key_or_group == SEARCHPATH]
    groups = [one.input_line for one in chosen if one.input_line and not one.is_sweep_override()]
    try:
        taken = compose(config_name, groups)
    except HydraException:
        return None
    names = [option.name for option in options_of(taken)]
    for override in parsed:
        key = override.key_or_group
        if _group(override) or override.is_add() or override.is_force_add() or key.startswith("hydra"):
            continue
        if key not in names and not any(name.startswith(f"{key}.") for name in names):
            return f"{key}: no such option of {config_name}{_meant(key, names)} {HELP}"
    return None


def _missing_of(config_name: str, overrides: Sequence[str]) -> str | None:
    try:
        taken = compose(config_name, overrides)
        check_given(taken)
    except UserError as error:
        return str(error)
    except HydraException:
        return None
    return None


def _meant(word: str, allowed: Sequence[str]) -> str:
    """What was probably meant: what is spelt alike, or begins alike, or is the same option in a group."""

    def likeness(name: str) -> float:
        same = name.rpartition(".")[2] == word.rpartition(".")[2]
        beginning = SequenceMatcher(None, word, name[: len(word)]).ratio()
        return max(SequenceMatcher(None, word, name).ratio(), beginning - 0.1, NEAR if same else 0.0)

    near = sorted((name for name in allowed if likeness(name) >= NEAR), key=likeness, reverse=True)[:MOST]
    if near and likeness(near[0]) > SURE:
        near = near[:1]
    return f"; did you mean {' or '.join(near)}?" if near else "."
