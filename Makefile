# Everything one does with this repository. Each target installs what it lacks
# (scripts/prepare); build needs nothing but Go.

SHELL := /bin/bash
BIN := bin/sixpn
# Packages tested at the same time: more only makes timings of real traffic noisy.
PARALLEL ?= 2
TIMEOUT ?= 30m

# Flags of "sixpn bench", e.g. make bench BENCH=--quick
BENCH ?=

.PHONY: help build generate lint test test-kernels bench demo image
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## the binary, bin/sixpn: static, needs only Go
	CGO_ENABLED=0 go build -o $(BIN) ./cmd/sixpn

generate: ## what is generated: the eBPF objects with their Go, the API server and client
	@scripts/prepare c
	go generate ./...

lint: ## golangci-lint and clang-format
	@scripts/prepare c
	go tool golangci-lint run
	clang-format-19 --dry-run -Werror bpf/*.[ch]

test: ## go vet and every test, with the race detector, as root
	@scripts/prepare c run
	go vet ./...
	go tool gotestsum --format pkgname-and-test-fails --hide-summary skipped \
		--post-run-command "sh -c 'echo \$$((TESTS_TOTAL - TESTS_FAILED - TESTS_SKIPPED)) passed, \$$TESTS_FAILED failed'" \
		-- -race -p $(PARALLEL) -timeout $(TIMEOUT) ./...

test-kernels: ## the part of the tests that hangs on the kernel, on Linux 6.12 and 6.1 in QEMU
	@scripts/prepare run kernels
	scripts/test-kernels

bench: build bin/coredns ## measure, beside plain routing, a bridge and other name servers, as root
	@scripts/prepare run
	$(BIN) bench $(BENCH)

bin/coredns: bench/coredns/go.mod bench/coredns/main.go
	cd bench/coredns && CGO_ENABLED=0 go build -o ../../$@ .

demo: build ## build a world, prove each claim with real traffic, clean up, as root
	@scripts/prepare run
	$(BIN) demo

image: ## the container image sixpn, which holds only the binary
	docker build -t sixpn .
