# `make` alone prints what there is.
DATA      ?= data
FUZZTIME  ?= 10s
SOAKTIME  ?= 30m
CHAOSTIME ?= 30m
CHAOS     ?=
BENCH     ?=
FROM      ?=
GUARDTIME ?= 12m
FIGURES   ?=
GUARD     ?=
HOSTILE   ?=
HISTORIES ?= 500
FIRST     ?= 1
GUESTDIR  ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ovs-guest

GO      ?= go
RELEASE := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

# No cgo: one static binary, and one memory behaviour to test.
export CGO_ENABLED = 0
export GO

.DEFAULT_GOAL := help
.PHONY: help build run test race lint fuzz soak sim chaos bugs upgrade e2e-vm bench bench-etcd bench-guard bench-wire hostile clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build ./bin/ovs
	$(GO) build -trimpath -buildvcs=false -ldflags '-X main.release=$(RELEASE)' -o bin/ovs ./cmd/ovs

run: build ## start ovs on ./data (or DATA=DIR) with a vDisk of 10 GiB, until Ctrl-C
	@scripts/run bin/ovs '$(DATA)'

test: ## vet and all tests; as root on Debian it installs the clients they need
	@scripts/test

race: ## all tests but the end-to-end ones under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -short -timeout 30m $$($(GO) list ./... | grep -v /scripts/)

lint: ## gofmt, go vet, and golangci-lint if it is installed
	@scripts/lint

fuzz: ## every fuzz target for FUZZTIME (10s)
	@scripts/fuzz $(FUZZTIME)

soak: ## the tests that draw random numbers, again and again for SOAKTIME (30m)
	@scripts/soak $(SOAKTIME)

sim: ## HISTORIES (500) of whole Arakoon groups under faults, from seed FIRST (1); two minutes
	$(GO) test ./arakoon/sim -count=1 -v -timeout 60m -run TestHistories -sim.histories '$(HISTORIES)' -sim.first '$(FIRST)'

chaos: ## harm to an Arakoon group of real processes, for CHAOSTIME (30m); CHAOS= takes flags (root: also networks and disks)
	$(GO) run ./scripts/chaos -time '$(CHAOSTIME)' $(CHAOS)

bench-etcd: ## an Arakoon group of three processes beside three servers of etcd; BENCH= takes flags
	cd scripts/etcdbench && $(GO) run . $(BENCH)

bugs: ## make deliberate bugs, one after another, and see that a test catches each; some minutes
	$(GO) run ./scripts/bugs

upgrade: ## a rolling upgrade of three hosts FROM=COMMIT to this tree (none: this tree to one that knows a level more)
	$(GO) run ./scripts/upgrade $(if $(FROM),-from '$(FROM)',-next)

e2e-vm: ## boot Linux guests on vDisks, by NBD and by the mount (root, Debian; twenty minutes)
	scripts/guest/prepare '$(GUESTDIR)'
	OVS_GUEST='$(GUESTDIR)' $(GO) test -count=1 -v -timeout 60m ./scripts/guest

bench-wire: ## round trips of the wire, and TLS of the wire and of NBD, beside bare sockets in the same run
	$(GO) test -run '^$$' -bench 'TLSOverPlain' -benchtime 20x ./internal/wire
	$(GO) test -run '^$$' -bench 'TwoProcesses|LocalRead' -benchtime 20x ./arakoon/kvclient
	$(GO) test -run '^$$' -bench 'TLSTwoProcesses' -benchtime 7x ./nbd

bench: ## compare with other servers and print the table; BENCH= takes its flags
	$(GO) run ./scripts/bench $(BENCH)

bench-guard: ## compare this tree with BASE=COMMIT for GUARDTIME (12m); fails if FIGURES= (all) are over 5 % worse
	@test -n '$(BASE)' || { echo 'make bench-guard BASE=COMMIT: which commit is this tree to be compared with?' >&2; exit 2; }
	$(GO) build -o bin/bench ./scripts/bench
	bin/bench guard -base '$(BASE)' -time '$(GUARDTIME)' -figures '$(value FIGURES)' $(GUARD)

hostile: ## a guest's fio beside every attack of nbd/hostile; fails if too little is left of it; HOSTILE= takes flags
	$(GO) run ./scripts/hostile $(HOSTILE)

clean: ## remove what make built; ./data stays
	rm -rf bin bench.json guard.json
