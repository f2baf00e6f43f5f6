package main

import (
	"errors"
	"os"
	"testing"
)

// before is the last release without clusters.
const before = "1302ddbe3da05403960e8a827cafacb92bb8ed01"

func upgrades(t *testing.T, from string) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes long")
	}
	if os.Getenv("OVS_BIN") != "" {
		t.Skip("builds releases of its own")
	}
	dir := t.TempDir()
	older, newer, err := releases(t.Context(), dir, from)
	if errors.Is(err, errNoCommit) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	u := &upgrade{ctx: t.Context(), dir: dir, older: older, newer: newer, say: t.Logf}
	if err := u.run(); err != nil {
		t.Fatal(err)
	}
}

// Three hosts go from this release to one that knows a level more, one after the other, while
// vDisks are made and removed, and no request fails. The groups are raised by a command, not before
// all hosts run it; then this release is refused, with members and at a join.
func TestRollingUpgrade(t *testing.T) { upgrades(t, "") }

// The data directory of the release before clusters becomes the first of three hosts with a flag
// and a restart, and has what it had. That release refuses it then.
func TestReleaseOfOneMachine(t *testing.T) { upgrades(t, before) }
