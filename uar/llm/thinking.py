"""Where the thinking of a model ends and its reply begins, in the marks that models and servers leave in a text."""

import re

OPENS = re.compile(r"<(?:\w+:)?(?:think|thinking|thought)>|\[THINK\]|◁think▷|<\|START_THINKING\|>|<\|channel>")
CLOSES = re.compile(r"</(?:\w+:)?(?:think|thinking|thought)>|\[/THINK\]|◁/think▷|<\|END_THINKING\|>|<channel\|>")
WRAPPED = re.compile(
    r"(?:<(?:answer|response)>|<\|START_RESPONSE\|>)(.*?)(?:</(?:answer|response)>|<\|END_RESPONSE\|>)?", re.DOTALL
)
CHANNEL = "<|channel|>"  # of the harmony format (gpt-oss)
FINAL = re.compile(r"<\|channel\|>\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")
FINAL_END = re.compile(r"<\|(?:return|end|call|start)\|>")
BARE_CHANNEL = re.compile(r"analysis(?=[^\s:.,;*_)-])")  # harmony without its special tokens: `analysisWe need …`
BARE_FINAL = "assistantfinal"


def without_thinking(text: str) -> str:
    """The reply itself: what stands after the last mark that ends thinking, or in harmony's `final` channel. Empty where the
    thinking never ends. A tag for the reply around all of it is taken off."""
    if CHANNEL in text:
        *_, last = [None, *FINAL.finditer(text)]
        return FINAL_END.split(text[last.end() :])[0].strip() if last else ""
    if BARE_CHANNEL.match(text.lstrip()):
        return text.rpartition(BARE_FINAL)[2].strip() if BARE_FINAL in text else ""
    answer = CLOSES.split(text)[-1].strip()
    if OPENS.match(answer):
        return ""
    wrapped = WRAPPED.fullmatch(answer)
    return wrapped.group(1).strip() if wrapped else answer
