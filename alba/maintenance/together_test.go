package maintenance_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/albatest"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/nsm/nsmtest"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/internal/gate"
)

var errDead = errors.New("this agent is dead")

// line is an agent's way to the ABM. Once it is cut, no call comes through: the agent is
// dead to all others.
type line struct {
	*nsmtest.Store
	left atomic.Int64 // calls until it is cut; below 0: it is not
}

func (l *line) Call(ctx context.Context, name string, version uint32, arg []byte) ([]byte, error) {
	switch n := l.left.Load(); {
	case n == 0:
		return nil, errDead
	case n > 0:
		l.left.Add(-1)
	}
	return l.Store.Call(ctx, name, version, arg)
}

// team is agents of one backend, each with a clock and ways of its own.
type team struct {
	b     *albatest.Backend
	now   atomic.Int64 // of all: seconds
	names int
	works []*maintenance.Maintenance
	lines []*line

	mu   sync.Mutex
	done map[string]map[int]int // how often each agent has changed each object
}

func newTeam(b *albatest.Backend, n int, change func(*maintenance.Options)) *team {
	g := &team{b: b, done: make(map[string]map[int]int)}
	for range n {
		g.join(change)
	}
	return g
}

// join adds an agent under a name that none had.
func (g *team) join(change func(*maintenance.Options)) {
	i := len(g.works)
	g.works, g.lines = append(g.works, nil), append(g.lines, nil)
	g.replace(i, change)
}

// replace puts a new agent in the place of one.
func (g *team) replace(i int, change func(*maintenance.Options)) {
	g.names++
	l := &line{Store: g.b.States[0]}
	l.left.Store(-1)
	o := g.b.WorkOptions()
	o.ABM, o.Agent, o.Lease = abm.NewClient(l, g.b.States[0]), fmt.Sprint("agent", g.names), time.Minute
	o.Now = func() time.Time { return time.Unix(g.now.Load(), 0) }
	o.Invalidate = func(ns uint64, name string) {
		g.b.Client.Invalidate(ns, name)
		g.mu.Lock()
		defer g.mu.Unlock()
		k := fmt.Sprint(ns, "/", name)
		if g.done[k] == nil {
			g.done[k] = make(map[int]int)
		}
		g.done[k][i]++
	}
	if change != nil {
		change(&o)
	}
	g.works[i], g.lines[i] = maintenance.New(o), l
}

// Several agents repair side by side: all becomes whole, all take part, and no object is
// repaired by two.
func TestAgentsShare(t *testing.T) {
	b := albatest.New(t, 3, twoOne, nil)
	b.Take(3)
	for i := range 30 {
		fill(t, b, fmt.Sprintf("ns%d", i), 10)
	}
	b.Return(3)
	g := newTeam(b, 3, nil)
	for range 10 {
		var agents sync.WaitGroup
		for _, w := range g.works {
			agents.Go(func() {
				if err := w.Survey(ctx); err != nil {
					t.Error(err)
				}
				if err := w.Help(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		agents.Wait()
		check(t, b.Work.Survey(ctx))
		if b.Work.Narrow() == 0 {
			break
		}
	}
	if len(g.done) != 300 {
		t.Fatalf("%d objects were repaired by agents", len(g.done))
	}
	for k, by := range g.done {
		if len(by) != 1 {
			t.Errorf("object %s was repaired by %d agents", k, len(by))
		}
	}
	left, err := (abm.Queue{Client: b.ABM}).WorkTotals(ctx, userfn.Consistent)
	if err != nil || left.Items != 0 {
		t.Errorf("%d items are left in the queue, %v", left.Items, err)
	}
	b.Check()
}

// An agent dies after each of its calls to the ABM in turn, the planner or another. The others
// do what it had, once its lease is over, and nothing is left in the queue.
func TestAgentDies(t *testing.T) {
	for cut := range int64(12) {
		b := albatest.New(t, 3, twoOne, nil)
		b.Take(3)
		for i := range 3 {
			fill(t, b, fmt.Sprintf("ns%d", i), 4)
		}
		b.Return(3)
		g := newTeam(b, 2, nil)
		g.lines[0].left.Store(cut)
		_ = g.works[0].Survey(ctx) // dies in the middle
		check(t, g.works[1].Survey(ctx))
		g.now.Add(120)
		for range 2 {
			check(t, g.works[1].Survey(ctx))
		}
		if n := g.works[1].Narrow(); n != 0 {
			t.Errorf("cut after %d calls: %d objects are narrow", cut, n)
		}
		left, err := (abm.Queue{Client: b.ABM}).WorkTotals(ctx, userfn.Consistent)
		if err != nil || left.Items != 0 {
			t.Errorf("cut after %d calls: %d items are left, %v", cut, left.Items, err)
		}
		check(t, b.Work.Collect(ctx, 0))
		for i := range 3 {
			verify(t, b, fmt.Sprintf("ns%d", i), 4)
		}
		b.Check()
	}
}

// An agent that hangs in the middle of a piece for longer than its lease, and wakes up when
// another has the piece, commits nothing more.
func TestLateAgentCommitsNothing(t *testing.T) {
	b := narrow(t, 6)
	g := newTeam(b, 2, nil)
	door := gate.New()
	b.Faults[3].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Count: 1, Skip: 1, Gate: door})
	hung := make(chan error, 1)
	go func() { hung <- g.works[0].Survey(ctx) }()
	check(t, door.Arrived(ctx, 1))
	g.now.Add(600)
	door.Open()
	<-hung
	if n := len(g.done); n != 1 {
		t.Errorf("%d objects were changed, 1 was before it hung", n)
	}
	g.works[1].Refresh(ctx)
	check(t, g.works[1].Survey(ctx))
	g.now.Add(600)
	check(t, g.works[1].Survey(ctx))
	wide(t, b, 6)
}

// What cannot be repaired does not have the agents plan again and again.
func TestAgentsRest(t *testing.T) {
	b := albatest.New(t, 3, twoOne, nil)
	b.Take(3)
	fill(t, b, "ns", 5)
	g := newTeam(b, 1, nil)
	g.works[0].Refresh(ctx)
	check(t, g.works[0].Survey(ctx))
	count := func() uint64 {
		totals, err := (abm.Queue{Client: b.ABM}).WorkTotals(ctx, userfn.Consistent)
		check(t, err)
		return totals.Last
	}
	before := count()
	if before == 0 {
		t.Fatal("nothing was planned")
	}
	for range 5 {
		check(t, g.works[0].Survey(ctx))
	}
	if count() != before {
		t.Error("it planned again, though nothing has changed")
	}
	b.Return(3)
	check(t, g.works[0].Survey(ctx))
	if n := g.works[0].Narrow(); n != 0 {
		t.Errorf("%d objects are narrow", n)
	}
	b.Check()
}
