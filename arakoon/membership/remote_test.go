package membership

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/arakoon/roster"
	"openvstorage/internal/wire"

	"github.com/google/uuid"
)

// away is a host that is off: each call waits for a connection. If it answers it does so to
// opAsk alone.
type away struct{ answers bool }

func (a away) CallWait(ctx context.Context, q wire.Request) (*wire.Reply, error) {
	if a.answers && q.Op == opAsk {
		return new(wire.Reply), nil
	}
	defer q.Body.Release()
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// A steward works on all groups in turn: a host that is away, or goes away, must not keep it.
func TestAHostThatIsAwayKeepsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		two := uuid.UUID{15: 2}
		r := &roster.Roster{Hosts: []roster.Host{{ID: two}}}
		for _, c := range []struct {
			host away
			most time.Duration
		}{{away{}, 3 * time.Second}, {away{answers: true}, time.Minute}} {
			h := &Remote{
				Cluster: cluster, Self: uuid.UUID{15: 1}, Roster: func() *roster.Roster { return r }, Patience: 3 * time.Second, Work: time.Minute,
				Dial: func(roster.Host) (Caller, error) { return c.host, nil },
			}
			for what, call := range map[string]func() error{
				"make": func() error { return h.Make(ctx, two, "g", 2) }, "drop": func() error { return h.Drop(ctx, two, "g", 2) },
			} {
				began := time.Now()
				if err := call(); err == nil || time.Since(began) > c.most {
					t.Errorf("%s took %v: %v", what, time.Since(began), err)
				}
			}
		}
	})
}

// A host in maintenance counts as away though it answers: it gets no members.
func TestAHostInMaintenanceCountsAsAway(t *testing.T) {
	self, two, three := uuid.UUID{15: 1}, uuid.UUID{15: 2}, uuid.UUID{15: 3}
	r := &roster.Roster{Hosts: []roster.Host{{ID: self, Maintenance: true}, {ID: two, Maintenance: true}, {ID: three}}}
	h := &Remote{
		Self: self, Patience: time.Minute, Dial: func(roster.Host) (Caller, error) { return away{answers: true}, nil },
		Place: func(uuid.UUID) (holds, leaves bool) { return true, false },
	}
	for i, p := range h.Places(t.Context(), r) {
		if want := p.ID == three; p.Alive != want || !p.Holds || p.Leaves {
			t.Errorf("host %d: %+v", i+1, p)
		}
	}
}
