"""How fast a model is, tried for a few seconds where that costs nothing."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import InstantiationException

from uar.errors import UserError
from uar.llm.costs.estimate import Rendered
from uar.llm.models import model_class
from uar.machine.model_files import locate

log = logging.getLogger(__name__)
FIRST, MORE = 2, 8  # calls that warm the model up, and calls of each further step
LONGEST = 5.0  # seconds until no further step begins


def tried_rate(llm: Mapping[str, Any], sample: Sequence[Rendered]) -> float | None:
    """Computed tokens a second of the model of a config, prompt and output together, by some calls of a sample, whose replies
    are thrown away. None where asking may cost something, the weights are not on this machine, or it fails."""
    requests = [one.request for _, asked in sample for one in asked]
    if not model_class(llm).free_trial or not requests:
        return None
    try:
        if not Path(locate(llm["model"])).exists():  # on the hub
            return None
        model = hydra.utils.instantiate(llm, _convert_="all")
    except (InstantiationException, UserError) as error:
        log.info("No rate was measured: %s", error.__cause__ or error)
        return None
    rate, asked, start = None, 0, time.perf_counter()
    while asked < len(requests) and time.perf_counter() - start < LONGEST:
        step = requests[asked : asked + (MORE if asked else FIRST)]
        asked += len(step)
        begun, done, computed = time.perf_counter(), 0, 0
        for ticket, request in enumerate(step):
            model.submit(ticket, request)
        while done < len(step):
            replies = [reply for _, reply in model.step()]
            done += len(replies)
            computed += sum(reply.tokens_in - reply.tokens_cached + reply.tokens_out for reply in replies)
        rate = computed / (time.perf_counter() - begun)  # of the last step, for which everything is warm
    model.close()
    log.info("The model was tried with %d calls for %.0f s", asked, time.perf_counter() - start)
    return round(rate, 1) if rate else None
