"""`python -m uar.loop acquire=idds rounds=5 per_round=20`: choose questions, have them labelled, train, score, again."""

from pathlib import Path

from omegaconf import DictConfig

from uar.errors import UserError
from uar.launch.entry import entry


def loop(cfg: DictConfig, folder: Path) -> float | None:
    """The loop, whose libraries are imported with the first job."""
    from uar.loops import loop_run

    if cfg.who != "human":
        return loop_run.loop(cfg, folder)
    try:
        from uar.reviewing.round_review import ask_people
    except ModuleNotFoundError as error:
        raise UserError(f"who=human: the page cannot be served ({error}); run: pip install 'uar[review]'") from error

    return loop_run.loop(cfg, folder, ask_people)


def main() -> None:
    entry("loop", loop)


if __name__ == "__main__":
    main()
