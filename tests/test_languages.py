"""Scripts without spaces, and English as it was: BM25's terms, answers, cuts, filters and refusals."""

import json
import logging
import random
import re
import string
import unicodedata
from collections.abc import Callable
from pathlib import Path

import bm25s
import numpy as np
import pytest
import Stemmer
from conftest import metrics, ok, write_jsonl
from rouge_score.rouge_scorer import RougeScorer

from uar.annotation.parsing import parse_grade
from uar.collections import Collection, open_collection
from uar.collections.answer_match import exact_match, f1, normalise, rouge_l
from uar.collections.languages import head, language_code, language_of, parts_of, words_in
from uar.collections.text_files import write_corpus
from uar.errors import DataError, UserError
from uar.llm.record import Outcome, Reply
from uar.pools import BM25Pool
from uar.questions.filters import Wording, Written, kept_once
from uar.retrievers.bm25.lexical_index import BM25
from uar.retrievers.bm25.terms import terms_of
from uar.storage.ordering import best_first

TEXTS = {  # language -> passages and a question about the first
    "zh": (["心脏通过身体输送血液。", "蜜蜂用花蜜制作蜂蜜。", "多瑙河流入黑海。", "小提琴有四根弦。"], "什么输送血液？"),
    "ja": (
        ["心臓は体に血液を送ります。", "ミツバチは花の蜜から蜂蜜を作る。", "ドナウ川は黒海に注ぐ。"],
        "血液を送るのは何ですか？",
    ),
    "ko": (
        ["심장은 온몸에 피를 보낸다.", "꿀벌은 꽃에서 꿀을 만든다.", "도나우강은 흑해로 흐른다."],
        "심장이 보내는 것은 무엇인가?",
    ),
    "th": (["หัวใจสูบฉีดเลือดไปทั่วร่างกาย", "ผึ้งทำน้ำผึ้งจากเกสรดอกไม้", "แม่น้ำดานูบไหลลงทะเลดำ"], "อะไรสูบฉีดเลือด"),
    "ru": (
        ["Сердце качает кровь по телу, и мы это слышим.", "Пчёлы делают мёд.", "Дунай впадает в Чёрное море."],
        "качали кровь",
    ),
    "ar": (["القلب يضخ الدم في الجسم.", "النحل يصنع العسل.", "يصب نهر الدانوب في البحر الأسود."], "ما الذي يضخ الدم؟"),
    "el": (["Η καρδιά αντλεί αίμα.", "Οι μέλισσες φτιάχνουν μέλι."], "ΚΑΡΔΙΆ ΑΊΜΑ"),
    "hi": (["हृदय शरीर में रक्त पंप करता है।", "मधुमक्खियाँ शहद बनाती हैं।"], "रक्त कौन पंप करता है?"),
    "en": (["The heart pumps blood.", "Bees make honey."], "what pumps blood"),
}  # fmt: skip


def folder_of(place: Path, passages: list[str], question: str, **settings: object) -> Path:
    (place / "qrels").mkdir(parents=True)
    write_jsonl(place / "corpus.jsonl", [{"_id": f"d{n}", "text": text} for n, text in enumerate(passages)])
    write_jsonl(place / "queries.jsonl", [{"_id": "q1", "text": question}])
    (place / "qrels" / "test.tsv").write_text("q1\td0\t1\n")
    if settings:
        (place / "collection.json").write_text(json.dumps(settings))
    return place


@pytest.mark.parametrize("language", list(TEXTS))
def test_bm25_finds_in_every_script(tmp_path: Path, caplog: pytest.LogCaptureFixture, language: str) -> None:
    passages, question = TEXTS[language]
    found = open_collection(f"local:{folder_of(tmp_path / 'c', passages, question)}:test")
    with caplog.at_level(logging.INFO):
        (hits,) = BM25.open(found.corpus).search([question], 2)
    assert found.corpus.language == language
    assert hits[0][0] == "d0"
    assert (f"language={language} by the script" in caplog.text) == (language != "en")
    assert "finds nothing" not in caplog.text
    assert BM25Pool(2, include_positive=False, shuffle=False).pools(found, ["q1"])["q1"][0] == "d0"


def test_terms_are_pairs_of_characters_or_stems() -> None:
    assert terms_of(["心脏通过 Linux 身体", "心", ""], "zh") == [["心脏", "脏通", "通过", "linux", "身体"], ["心"], []]
    assert terms_of(["ผึ้งบิน"], "th") == [["ผึ้ง", "งบิ", "บิน"]]
    assert terms_of(["심장은 피를"], "ko") == [["심장", "장은", "피를"]]
    assert terms_of(["Die Häuser der Stadt", "HAUS"], "de") == [["haus", "stadt"], ["haus"]]
    assert terms_of(["Zu\u0308rich", "Zürich", "ＺÜＲＩＣＨ"], "other") == [["zürich"]] * 3
    assert terms_of(["データベース１２"], "ja") == [["デー", "ータ", "タベ", "ベー", "ース", "12"]]
    assert terms_of(["the bees making"], "en") == [["bee", "make"]]


def test_english_keeps_its_scores_to_the_bit() -> None:
    mini = open_collection("mini:test")
    assert mini.corpus.language == "en"
    stemmer = Stemmer.Stemmer("english")
    index = bm25s.BM25(k1=1.5, b=0.75, method="lucene", dtype="float32")
    texts = list(mini.corpus.texts())
    index.index(bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False), show_progress=False)
    queries = [q.text for q in mini.queries.values()]
    ids = list(mini.corpus.ids())
    for query, hits in zip(queries, BM25.open(mini.corpus).search(queries, 10), strict=True):
        words = bm25s.tokenize([query], stopwords="en", stemmer=stemmer, show_progress=False, return_ids=False)[0]
        scores = index.get_scores(words)
        assert hits == best_first((ids[row], float(scores[row])) for row in np.flatnonzero(scores > 0))[:10]


def test_questions_that_bm25_finds_nothing_for_are_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    corpus = open_collection(f"local:{folder}:test").corpus
    hits = BM25.open(corpus).search(["что качает кровь", "what pumps blood", "什么"], 3)
    assert [len(h) for h in hits] == [0, 1, 0]
    assert "BM25 finds nothing for 2 of 3 questions, which share no term with any passage (language=en)" in caplog.text


def test_a_language_that_is_said_counts_and_has_an_index_of_its_own(tmp_path: Path) -> None:
    passages = ["Die Häuser sind alt.", "Das Haus der Kunst.", "Ein Baum."]
    plain = folder_of(tmp_path / "plain", passages, "Häusern")
    said = folder_of(tmp_path / "said", passages, "Häusern", language="german")

    def found(collection: Collection) -> list[str]:
        return [d for d, _ in BM25.open(collection.corpus).search(["Häusern"], 3)[0]]

    assert found(open_collection(f"local:{plain}:test")) == []
    assert found(open_collection(f"local:{said}:test")) == ["d0", "d1"]
    assert found(open_collection(f"local:{plain}:test", "de")) == ["d0", "d1"]
    assert found(open_collection(f"local:{said}:test", "English")) == []
    assert open_collection(f"local:{plain}:test", "de").hash == open_collection(f"local:{plain}:test").hash
    (said / "collection.json").write_text('{"language": "klingon"}')
    with pytest.raises(DataError, match=r"collection\.json: language='klingon' is not known; allowed: auto, ar, ca, "):
        open_collection(f"local:{said}:test")
    (said / "collection.json").write_text('{"language": 3}')
    with pytest.raises(DataError, match="'language' is 3; a code such as 'zh' is needed"):
        open_collection(f"local:{said}:test")


def test_the_option_reaches_bm25(tmp_path: Path, command: Callable, fails: Callable[..., str]) -> None:
    place = folder_of(tmp_path / "c", ["Die Häuser sind alt.", "Ein Baum steht."], "Häusern")
    given = ["retriever=bm25", f"collections=[local:{place}:test]", "measures=[RR@10]", "logger=none"]
    ok(command("uar.evaluate", *given, "language=de", "hydra.run.dir=de"))
    assert metrics(tmp_path / "de")["retrieval"]["c.test"] == {"RR@10": 1.0}
    told = ok(command("uar.evaluate", *given, "hydra.run.dir=auto"))
    assert metrics(tmp_path / "auto")["retrieval"]["c.test"] == {"RR@10": 0.0}
    assert "BM25 finds nothing for 1 of 1 questions" in told
    assert "language='xx' is not known" in fails("uar.evaluate", *given, "language=xx")


@pytest.mark.parametrize(
    ("texts", "language"),
    [
        (["Серце качає кров по тілу."], "other"),
        (["Дунав се улива у Црно море, а Сава у Дунав."], "other"),
        (["قلب خون را پمپاژ می‌کند و چگونه؟"], "other"),
        (["הלב מזרים דם"], "other"),
        (["12 34", ""], "other"),
        (["维基百科 (Wikipedia) 是一个百科全书"], "zh"),
        (["The word 北京 means northern capital of the country."], "en"),
    ],
)
def test_a_script_of_several_languages_is_left_open(texts: list[str], language: str) -> None:
    assert language_of(texts) == language


def test_languages_are_named_by_code_or_name() -> None:
    assert [language_code(name) for name in ("zh", "Chinese", "AUTO", "other", "Turkish")] == [
        "zh",
        "zh",
        "auto",
        "other",
        "tr",
    ]
    with pytest.raises(UserError, match="language='xx' is not known"):
        language_code("xx")


def squad(text: str) -> str:
    """normalize_answer of SQuAD's evaluate-v1.1.py."""
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def test_english_answers_keep_their_measures_to_the_bit() -> None:
    rng = random.Random(0)
    signs = string.ascii_letters + string.digits + string.punctuation + "     \t\n"
    theirs = RougeScorer(["rougeL"], use_stemmer=True)
    words = ["the", "a", "an", "running", "runs", "city's", "U.S.", "1,000", "half-life", "The", "cities", "is", "running"]
    for _ in range(300):
        a, b = ("".join(rng.choices(signs, k=20)) + " " + " ".join(rng.choices(words, k=5)) for _ in range(2))
        assert normalise(a) == squad(a)
        assert rouge_l(a, [b]) == theirs.score(b, a)["rougeL"].fmeasure


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("“Paris”", "Paris"),
        ("‘Paris’.", "paris"),
        ("北京市。", "北京市"),
        ("「東京」", "東京"),
        ("Москва.", "москва"),
        ("กรุงเทพ", "กรุงเทพ"),
        ("서울", "서울."),
        ("القاهرة؟", "القاهرة"),
        ("Ｔｏｋｙｏ", "tokyo"),
        (unicodedata.normalize("NFD", "Zürich"), "Zürich"),
        ("it’s", "it's"),
        ("¿Madrid?", "Madrid"),
        ("STRASSE", "Straße"),
        ("dis\u00adease", "disease"),
        ("می\u200cخواهم", "میخواهم"),
    ],
)
def test_equal_answers_are_equal_in_every_script(answer: str, gold: str) -> None:
    assert exact_match(answer, [gold]) == f1(answer, [gold]) == 1
    assert rouge_l(answer, [gold]) == pytest.approx(1)
    assert exact_match(answer, ["Rome"]) == f1(answer, ["Rome"]) == rouge_l(answer, ["Rome"]) == 0


def test_answers_of_scripts_without_spaces_overlap_by_characters() -> None:
    assert f1("北京", ["北京市"]) == pytest.approx(0.8) == rouge_l("北京", ["北京市"])
    assert f1("в Москве", ["Москва"]) == 0 and f1("город Москва", ["Москва"]) == pytest.approx(2 / 3)
    assert exact_match("北京 Beijing", ["北京Beijing"]) == 1


def test_words_are_counted_in_every_script() -> None:
    assert [words_in(t) for t in ("", "what do bees make?", "蜜蜂做什么", "심장은 피를", "หัวใจสูบฉีดเลือด", "用Linux的人")] == [
        0,
        4,
        5,
        2,
        4,
        4,
    ]
    assert words_in("a " * 1_000, 20) == 20
    rng = random.Random(1)
    for _ in range(200):
        text = "".join(rng.choices("abc é,.–\n\t\x1c\x85\xa0  ", k=60))
        assert words_in(text) == len(text.split())
        assert head(text, 5).split() == (text.split()[:5] if len(text.split()) > 5 else text.split())
        assert list(parts_of(text, 3)) == [" ".join(text.split()[n : n + 3]) for n in range(0, len(text.split()), 3)]
    assert head("蜜蜂用花蜜制作蜂蜜", 4) == "蜜蜂用花"
    thai = "หัวใจสูบฉีดเลือดไปทั่วร่างกาย"
    assert thai.startswith(head(thai, 2)) and 10 <= len(head(thai, 2)) <= 12
    assert not unicodedata.combining(thai[len(head(thai, 2))])


def test_a_chinese_text_file_becomes_passages(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("心脏输送血液" * 10 + "\n\n" + "蜜蜂" * 5, encoding="utf-8")
    assert write_corpus(tmp_path / "texts", tmp_path / "out", 25, min_words=0, near_copy=None)["passages"] == 4
    rows = [json.loads(line)["text"] for line in (tmp_path / "out" / "corpus.jsonl").read_text().splitlines()]
    assert [len(text) for text in rows] == [20, 20, 20, 10]


def test_questions_without_spaces_pass_the_filters() -> None:
    wording = Wording(4, 30, re.compile("本文"))
    fault = wording.fault
    assert [fault(q, "其他") for q in ("什么器官输送血液？", "谁？", "本文说了什么？")] == [
        None,
        "too short",
        "unwanted words",
    ]
    assert fault("蜜蜂做什么？", "我知道蜜蜂做什么。") == "copied"
    questions = [Written(str(n), text, "d") for n, text in enumerate(("蜜蜂做什么？", "蜜蜂做什么", "心脏输送什么？"))]
    kept, dropped = kept_once(questions, 0.8, "zh")
    assert [q.id for q in kept] == ["0", "2"] and [d.why for d in dropped] == ["duplicate"]


@pytest.mark.parametrize(
    "text",
    [
        "I can’t help with that.",
        "抱歉，我无法回答。",
        "申し訳ありませんが、お答えできません。",
        "죄송합니다.",
        "ขออภัย",
        "К сожалению, нет.",
        "Es tut mir leid.",
        "Je ne peux pas répondre.",
        "Lo siento.",
        "آسف، لا أستطيع.",
    ],
)
def test_refusals_are_known_in_other_languages(text: str) -> None:
    assert parse_grade(Reply(text, Outcome.OK), range(4)) == (Outcome.REFUSED, None)
    assert parse_grade(Reply("心脏", Outcome.OK), range(4)) == (Outcome.UNPARSABLE, None)
