package transport

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"openvstorage/arakoon"
	"openvstorage/internal/disk/crashdisk"

	"go.uber.org/goleak"
)

// group3 is a group of real nodes on the hosts of a network.
type group3 struct {
	*network
	nodes map[uint64]*arakoon.Node
	disks map[uint64]*crashdisk.FS

	compact int64 // how much log is kept
}

func newGroup3(t *testing.T, kind string, compact int64) *group3 {
	disks := map[uint64]*crashdisk.FS{}
	n := newNetwork(t, kind, 3, func(member uint64, o *Options) {
		disks[member] = crashdisk.New()
		if err := disks[member].MkdirAll("/node", 0o700); err != nil {
			t.Fatal(err)
		}
		o.FS, o.Redial, o.Most = disks[member], 5*time.Millisecond, 50*time.Millisecond
	})
	return &group3{n, map[uint64]*arakoon.Node{}, disks, compact}
}

func (g *group3) open(member uint64) *arakoon.Node {
	g.t.Helper()
	h := g.hosts[member-1]
	_, err := g.disks[member].Stat("/node/log")
	node, err := arakoon.Open(arakoon.Options{
		FS: g.disks[member], Dir: "/node", Cluster: testCluster, Member: member, Life: 3, Existing: err == nil,
		Joining: member != 1, Transport: h.t, Fetcher: h.t, Tick: 20 * time.Millisecond, SegmentBytes: min(1<<20, g.compact), MemTableBytes: 1 << 20, CompactBytes: g.compact,
	})
	if err != nil {
		g.t.Fatal(err)
	}
	h.groups.Remove(h.t) // of the recorder, or of the node before
	if err := h.groups.Add(h.t, node, SnapshotsOf(node)); err != nil {
		g.t.Fatal(err)
	}
	g.nodes[member] = node
	g.t.Cleanup(func() { _ = node.Close() })
	return node
}

// close ends a member and its host's server.
func (g *group3) close(member uint64) {
	h := g.hosts[member-1]
	_ = g.nodes[member].Close()
	delete(g.nodes, member)
	h.groups.Remove(h.t)
	stopServer(h.server)
}

// do repeats something at whichever member leads until it has succeeded.
func (g *group3) do(what string, f func(ctx context.Context, n *arakoon.Node) error) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	defer cancel()
	var last error
	for ctx.Err() == nil {
		for _, n := range g.nodes {
			if !n.Leading() {
				continue
			}
			one, stop := context.WithTimeout(ctx, 5*time.Second)
			last = f(one, n)
			stop()
			if last == nil {
				return
			}
		}
		yield()
	}
	for id, n := range g.nodes {
		g.t.Logf("member %d: %+v, %v, %+v", id, n.Status(), n.Err(), g.hosts[id-1].t.Stats())
	}
	g.t.Fatalf("%s: %v", what, last)
}

func (g *group3) set(key, value string) {
	g.t.Helper()
	g.do("set "+key, func(ctx context.Context, n *arakoon.Node) error {
		_, err := n.Do(ctx, new(arakoon.Sequence).Set([]byte(key), []byte(value)))
		return err
	})
}

// has waits until a member by itself has a key.
func (g *group3) has(member uint64, key, value string) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	defer cancel()
	for {
		got, err := g.nodes[member].Get(ctx, arakoon.Local, []byte(key))
		if err == nil && string(got) == value {
			return
		}
		if ctx.Err() != nil {
			g.t.Fatalf("member %d: %q is %q: %v", member, key, got[:min(len(got), 20)], err)
		}
		yield()
	}
}

// Three members on three hosts elect, replicate, go on without one of them, and take it back,
// over real sockets, plain and with certificates of both sides.
func TestGroupOfThree(t *testing.T) {
	for _, kind := range []string{"tcp", "tls"} {
		t.Run(kind, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			g := newGroup3(t, kind, 1<<30)
			for id := range uint64(3) {
				g.open(id + 1)
			}
			g.do("learners", func(ctx context.Context, n *arakoon.Node) error { return n.AddLearner(ctx, 2, 3) })
			g.do("promotion", func(ctx context.Context, n *arakoon.Node) error { return n.Promote(ctx, 2, 3) })
			g.set("a", "1")
			large := make([]byte, 2<<20)
			g.set("large", string(large))
			for id := range uint64(3) {
				g.has(id+1, "large", string(large))
			}
			var leader uint64
			g.do("leader", func(_ context.Context, n *arakoon.Node) error { leader = n.Status().ID; return nil })
			g.close(leader)
			for i := range 20 {
				g.set(fmt.Sprint("while away ", i), "2")
			}
			g.disks[leader] = g.disks[leader].Kill()
			g.serve(g.hosts[leader-1])
			g.open(leader)
			g.set("b", "3")
			for id := range uint64(3) {
				g.has(id+1, "b", "3")
				g.has(id+1, "while away 19", "2")
			}
			for id, n := range g.nodes {
				if err := n.Err(); err != nil {
					t.Errorf("member %d: %v", id, err)
				}
			}
			for id := range uint64(3) {
				if s := g.hosts[id].t.Stats(); s.Large+s.Unknown > 0 {
					t.Errorf("member %d: %+v", id+1, s)
				}
				_ = g.nodes[id+1].Close()
				g.hosts[id].t.Close()
				stopServer(g.hosts[id].server)
			}
			if err := errors.Join(g.nodes[1].Err()); err != nil && !errors.Is(err, arakoon.ErrClosed) {
				t.Error(err)
			}
		})
	}
}

// A member that was away for longer than the log reaches gets the leader's state, fetched by
// the transport, and goes on from there.
func TestSnapshotOverTheWire(t *testing.T) {
	g := newGroup3(t, "tls", 256<<10)
	for id := range uint64(3) {
		g.open(id + 1)
	}
	g.do("learners", func(ctx context.Context, n *arakoon.Node) error { return n.AddLearner(ctx, 2, 3) })
	g.do("promotion", func(ctx context.Context, n *arakoon.Node) error { return n.Promote(ctx, 2, 3) })
	g.set("a", "1")
	g.has(3, "a", "1")
	g.close(3)
	value := string(make([]byte, 200<<10))
	for i := range 40 {
		g.set(fmt.Sprint("key ", i), value)
	}
	g.serve(g.hosts[2])
	g.open(3)
	g.set("b", "2")
	g.has(3, "b", "2")
	g.has(3, "key 0", value)
	reads := uint64(0)
	for _, h := range g.hosts[:2] {
		reads += h.t.Stats().Reads
	}
	if reads == 0 {
		t.Error("it caught up without a snapshot: the test tests nothing")
	}
}
