"""`python -m uar.review run=outputs/RUN`: a page on which people judge passages, and a report of what they said."""

from pathlib import Path

from omegaconf import DictConfig

from uar.errors import UserError
from uar.launch.entry import entry


def review(cfg: DictConfig, folder: Path) -> int:
    """The review command, whose libraries are imported when it runs. Labels are kept in `out`, also by the jobs of a sweep, in
    whose own folders there is the log alone."""
    try:
        from uar.reviewing import review_run
    except ModuleNotFoundError as error:
        raise UserError(f"the page cannot be served ({error}); run: pip install 'uar[review]'") from error

    return review_run.review(cfg, Path(cfg.out))


def main() -> None:
    entry("review", review)


if __name__ == "__main__":
    main()
