"""The page for the questions of a round of a loop: it ends when all of them are judged."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from uar.errors import UserError
from uar.launch.round_config import round_config
from uar.reviewing.review_files import write_files
from uar.reviewing.review_run import open_review, serve_page
from uar.storage.files import whole_file
from uar.storage.judgement_files import NAME

log = logging.getLogger(__name__)
ENDING = "This round is labelled. A model learns from it now; the questions of the next round come here by themselves."


def ask_people(cfg: DictConfig, folder: Path, chosen: Sequence[str], file: Path) -> int:
    """Serve the page until people have judged the chosen questions, of all rounds so far. `folder`: of the loop, whose review
    is one; `file`: gets the judgements as they are then. Returns their number."""
    asked = round_config(cfg, "review", "uar.review", "review")
    labelling = open_review(asked, folder / "review", chosen)
    labelling.ending = ENDING
    try:
        if not labelling.settled():
            serve_page(asked, labelling, folder / "review", until_settled=True)
    finally:
        number = write_files(labelling, folder / "review")
        if skipped := labelling.skipped_by_all():
            log.info("%d of %d questions were skipped by everyone and have no label", skipped, len(chosen))
        labelling.database.close()
    if not number:
        raise UserError(
            f"{folder / 'review'}: all questions of the round were skipped, so that there is nothing to learn from"
        )
    with whole_file(file) as beside:
        shutil.copyfile(folder / "review" / NAME, beside)
    return number
