package cluster_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"openvstorage/arakoon/state"
	"openvstorage/host/cluster"
	"openvstorage/internal/wire"
	"openvstorage/trust/trusttest"
)

// A host whose release does not know the level of the groups is refused by name: at the join,
// before its token is used, and as a host that is in the cluster. A connection that is there goes
// on, and whoever asks for a host's level gets it however low that is.
func TestOlderHostIsRefused(t *testing.T) {
	var level atomic.Uint32
	level.Store(state.LevelSteps)
	first := newMachine(t)
	o := first.options(t, "")
	o.Least = level.Load
	one, err := cluster.Lead(t.Context(), o, trusttest.NewStore(), first.claim(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	serve(t, one)
	two, _ := join(t, one)
	line, three := token(t, one), newMachine(t)

	level.Store(cluster.Level + 1) // every host here is of an older release then
	for range 2 {
		if _, err := cluster.Resume(t.Context(), three.options(t, line)); !errors.Is(err, wire.ErrLevel) {
			t.Fatalf("a host of an older release joins: %v", err)
		}
	}
	if cluster.HasJoined(three.dir) {
		t.Error("it takes itself for one that has joined")
	}
	to := two.DialOptions(t.Context(), one.ID(), cluster.ServiceHosts)
	to.Network, to.Address = "tcp", manage(one).Self().Address
	if _, err := wire.Dial(t.Context(), to); !errors.Is(err, wire.ErrLevel) {
		t.Errorf("one that has joined: %v", err)
	}
	if s := manage(two).Self(); !s.Linked {
		t.Errorf("its connection was ended: %+v", s)
	}
	// The other way round: the newer one would not speak with the older, and asks for its level.
	to = one.DialOptions(t.Context(), two.ID(), cluster.ServiceHosts)
	to.Network, to.Address = "tcp", manage(two).Self().Address
	if _, err := wire.Dial(t.Context(), to); !errors.Is(err, wire.ErrLevel) {
		t.Errorf("the newer one connects: %v", err)
	}
	if l, err := cluster.LevelAt(t.Context(), one, two.ID(), to.Address); err != nil || l != cluster.Level {
		t.Errorf("it knows %d, %v", l, err)
	}

	level.Store(cluster.Level)
	h, err := cluster.Resume(t.Context(), three.options(t, line))
	if err != nil {
		t.Fatalf("the token was used: %v", err)
	}
	closeHost(t, h)
}
