package main

import (
	"context"
	"flag"
	"testing"
	"time"
)

var (
	testTime = flag.Duration("chaos.time", time.Minute, "of harm to real processes")
	testSeed = flag.Uint64("chaos.seed", 1, "of its order")
)

// A group of three real processes serves what it promises under all harm that this machine
// allows.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("a minute of real processes")
	}
	o := options{time: *testTime, seed: *testSeed, members: 3, clients: 8, dir: t.TempDir(), longest: 2 * time.Second, say: t.Logf}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	if err := harass(ctx, o); err != nil {
		t.Fatal(err)
	}
}
