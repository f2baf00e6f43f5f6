package sim

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"openvstorage/arakoon"
)

// caughtUp waits until a machine has all that was answered so far.
func (g *group) caughtUp(t *testing.T, m *machine) {
	t.Helper()
	at := g.watch.newestAnswered()
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if n, _ := m.node(); n != nil && n.Applied() >= at {
			return
		}
		if time.Since(began) > healing {
			t.Fatalf("it has not caught up with %d%s", at, g.status())
		}
	}
}

// A slave is blocked, again and again, and the group goes on without it. Then both slaves are,
// and it answers nothing until they are back.
func TestSlavesBlockedInALoop(t *testing.T) {
	scenario(t, plan{members: 3}, func(t *testing.T, g *group) {
		for i := range 6 {
			mend := g.isolated(g.slaves(t)[i%2])
			g.works(t)
			mend()
			g.works(t)
		}
		for range 3 {
			slaves := g.slaves(t)
			first, second := g.isolated(slaves[0]), g.isolated(slaves[1])
			time.Sleep(time.Second)
			g.stands(t)
			first()
			g.works(t)
			second()
			g.works(t)
		}
	})
}

// A node is away for twice as many writes each time, and catches up each time: by the log at
// first, and by a snapshot when the log is gone.
func TestDoublingAbsences(t *testing.T) {
	scenario(t, plan{members: 3, compact: 16 << 10}, func(t *testing.T, g *group) {
		m := g.slaves(t)[0]
		c := newClient(g, 902)
		for writes := 25; writes <= 800; writes *= 2 {
			m.shut()
			for done := 0; done < writes; {
				if c.write(c.some(set)) != 0 {
					done++
				}
			}
			m.start()
			g.caughtUp(t, m)
		}
		if g.fetched.Load() == 0 {
			t.Error("no snapshot was fetched")
		}
	})
}

// Nodes whose logs roll over and are cut at different sizes are one group: each catches up
// from any other.
func TestMixedRolloverSizes(t *testing.T) {
	scenario(t, plan{members: 3, compact: 16 << 10, mixed: true}, func(t *testing.T, g *group) {
		for range 2 {
			for _, m := range g.all() {
				m.shut()
				time.Sleep(6 * time.Second)
				m.start()
				g.caughtUp(t, m)
			}
		}
	})
}

// Large values get through a network that loses, delays and doubles what it carries, and all
// nodes have them whole.
func TestLargeValuesOverAFlakyNetwork(t *testing.T) {
	scenario(t, plan{members: 3}, func(t *testing.T, g *group) {
		flaky := weather{lose: 0.2, double: 0.2, late: 0.3, echo: 0.1, least: fair.least, most: 20 * time.Millisecond, lateness: 500 * time.Millisecond}
		was := g.net.change(flaky)
		random := rand.NewChaCha8([32]byte{1})
		for i := range 12 {
			value := make([]byte, 256<<10)
			_, _ = random.Read(value)
			g.put(t, fmt.Appendf(nil, "large/%d", i%4), value)
		}
		g.net.change(was)
	})
}

// put writes a value until that is answered, and reads it.
func (g *group) put(t *testing.T, key, value []byte) {
	t.Helper()
	for began := time.Now(); time.Since(began) < healing; time.Sleep(20 * time.Millisecond) {
		n, _ := g.master(t).node()
		if n == nil {
			continue
		}
		ctx, stop := context.WithTimeout(context.Background(), patience)
		_, _, err := n.Write(ctx, new(arakoon.Sequence).Set(key, value))
		var got []byte
		if err == nil {
			got, err = n.Get(ctx, arakoon.Consistent, key)
		}
		stop()
		switch {
		case err != nil:
		case !bytes.Equal(got, value):
			t.Fatalf("%s has another value than was answered", key)
		default:
			return
		}
	}
	t.Fatalf("%s was not written%s", key, g.status())
}
