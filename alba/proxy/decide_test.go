package proxy

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"openvstorage/backend"
	"openvstorage/backend/mem"
	"openvstorage/internal/wire"
)

// What is made again is what the table of the package says, for every outcome of an attempt.
func TestWhatIsRepeated(t *testing.T) {
	for _, c := range []struct {
		class class
		o     outcome
		again bool
	}{
		{reads, done, false}, {reads, notBegun, true}, {reads, unknown, true},
		{repeats, done, false}, {repeats, notBegun, true}, {repeats, unknown, true},
		{once, done, false}, {once, notBegun, true}, {once, unknown, false},
	} {
		a := attempts{class: c.class, most: 3}
		if got := a.again(c.o, errors.New("why")); got != c.again {
			t.Errorf("class %d, outcome %d: %v", c.class, c.o, got)
		}
		a = attempts{class: c.class, most: 1}
		if a.again(c.o, errors.New("why")) {
			t.Errorf("class %d, outcome %d: more attempts than may be", c.class, c.o)
		}
	}
	for err, want := range map[error]outcome{
		nil:                                  done,
		&told{kindConflict, "c"}:             done,
		&told{kindOther, "o"}:                done,
		&told{kindClosed, "c"}:               notBegun,
		&told{kindFailed, "f"}:               notBegun,
		&told{kindNoRoom, "r"}:               notBegun,
		&told{kindNotHeld, "h"}:              notBegun,
		&told{kindDeadline, "d"}:             unknown,
		fmt.Errorf("x: %w", wire.ErrNotSent): notBegun,
		wire.ErrOutcomeUnknown:               unknown,
		wire.ErrUnknownOp:                    done,
		errors.New("else"):                   unknown,
	} {
		if got := outcomeOf(err); got != want {
			t.Errorf("%v: outcome %d, want %d", err, got, want)
		}
	}
}

// However attempts of a change end, its error never says that nothing was changed if one of them
// may have changed something. The model is a loop over all sequences of three outcomes.
func TestNoFalseWord(t *testing.T) {
	ends := []error{
		nil, wire.ErrNotSent, wire.ErrOutcomeUnknown, &told{kindClosed, "closed"}, &told{kindDeadline, "late"}, &told{kindConflict, "conflict"},
		&told{kindExists, "exists"}, &told{kindFailed, "failed"}, &told{kindNamespaceExists, "exists"}, &told{kindKey, "key"},
	}
	for i := range len(ends) * len(ends) * len(ends) {
		for _, class := range []class{repeats, once} {
			a := attempts{class: class, most: 3}
			var err error
			may := false // it may have been done
			for k, left := 0, i; k < 3; k, left = k+1, left/len(ends) {
				e := ends[left%len(ends)]
				o := outcomeOf(e)
				more := a.again(o, e)
				err = a.result(o, e)
				may = may || o == unknown
				if !more {
					break
				}
			}
			if may && err != nil && !backend.Unknown(err) && !errors.Is(err, backend.ErrExists) {
				t.Errorf("sequence %d of class %d: %v", i, class, err)
			}
		}
	}
}

// Patience doubles, and the last attempt has that of the caller.
func TestPatience(t *testing.T) {
	a := attempts{class: reads, most: 4, first: time.Second}
	for i, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 0} {
		if got := a.patience(); got != want {
			t.Errorf("attempt %d: %v", i, got)
		}
		a.again(unknown, errors.New("late"))
	}
	if a = (attempts{most: 4}); a.patience() != 0 {
		t.Error("patience with the only proxy there is")
	}
}

// The order: connected, tried least often, not resting, first.
func TestChoose(t *testing.T) {
	type state struct {
		name  string
		up    bool
		tried int
		rests bool
	}
	for _, c := range []struct {
		all  []state
		want string
	}{
		{nil, ""},
		{[]state{{"a", false, 0, false}}, ""},
		{[]state{{"a", true, 0, false}, {"b", true, 0, false}}, "a"},
		{[]state{{"a", false, 0, false}, {"b", true, 3, true}}, "b"},
		{[]state{{"a", true, 0, true}, {"b", true, 0, false}}, "b"},
		{[]state{{"a", true, 1, false}, {"b", true, 0, true}}, "b"},
		{[]state{{"a", true, 1, false}, {"b", true, 1, false}}, "a"},
	} {
		got := choose(c.all, func(s state) (bool, int, bool) { return s.up, s.tried, s.rests })
		if got.name != c.want {
			t.Errorf("%v: %q", c.all, got.name)
		}
	}
}

// Without an Admit nobody is served; with one, only what it says.
func TestWhoMay(t *testing.T) {
	s := mem.New(0)
	must(t, s.CreateNamespace(t.Context(), "n"))
	r := newRig(t, "tcp", "", s, nil)
	if err := r.server.Service(nil).Admit(t.Context(), &wire.Peer{}); err == nil {
		t.Error("nobody was told whom to serve, and somebody is")
	}
	silent := func(context.Context, *wire.Peer) (func(uint16) error, error) { return nil, nil }
	if err := r.server.Service(silent).Admit(t.Context(), &wire.Peer{}); err == nil {
		t.Error("nobody said what the peer may do, and it is served")
	}
	asked := map[uint16]bool{}
	readers := func(_ context.Context, p *wire.Peer) (func(uint16) error, error) {
		return func(op uint16) error {
			asked[op] = true
			if Writes(op) {
				return fmt.Errorf("%s is for others", OpName(op))
			}
			return nil
		}, nil
	}
	service := r.server.Service(readers)
	p := &wire.Peer{Addr: r.at}
	must(t, service.Admit(t.Context(), p))
	for op := range uint16(opIdentify + 2) {
		a := service.Handler.Serve(t.Context(), &wire.Incoming{Op: op, Peer: p})
		if denied := a.Status == uint16(wire.CodeDenied); denied != Writes(op) || !asked[op] {
			t.Errorf("%s: denied %v, asked about %v", OpName(op), denied, asked[op])
		}
	}
	for op, writes := range map[uint16]bool{
		opPut: true, opPutIf: true, opGet: false, opStat: false, opDelete: true, opList: false, opNarrow: false, opCreate: true, opRemove: true,
		opNamespaces: false, opUsage: false, opHold: true, opStats: false, opIdentify: false, opIdentify + 1: true, 0: true,
	} {
		if Writes(op) != writes {
			t.Errorf("%s: writes %v", OpName(op), Writes(op))
		}
	}
}

// Calls, bytes and errors are counted by namespace; of too many namespaces some together, and none
// is lost.
func TestStats(t *testing.T) {
	s := mem.New(0)
	must(t, s.CreateNamespace(t.Context(), "n"))
	r := newRig(t, "unix", "", s, nil)
	c := all(t, dial(t, nil, r.target()))
	ns := c.Namespace("n")
	must(t, ns.Put(t.Context(), "o", pattern(1000)))
	_, err := ns.Get(t.Context(), "o", make([]byte, 300), 0)
	must(t, err)
	_, err = ns.Get(t.Context(), "none", make([]byte, 300), 0)
	if !errors.Is(err, backend.ErrNotFound) {
		t.Fatal(err)
	}
	list, err := c.Stats(t.Context())
	must(t, err)
	if len(list) != 1 || list[0].Namespace != "n" || list[0].Write.Bytes != 1000 || list[0].Write.Calls != 1 || list[0].Read.Bytes != 300 || list[0].Read.Calls != 2 || list[0].Read.Errors != 0 {
		t.Errorf("%+v", list)
	}
	var times uint64
	for _, n := range list[0].Read.Times {
		times += n
	}
	if times != 2 {
		t.Errorf("%d times of 2 reads", times)
	}

	many := counters{by: make(map[string]*counted)}
	for i := range 10 * namespacesMax {
		many.note(opGet, fmt.Sprint("n", i), 1, time.Microsecond, i%2 == 0)
		many.note(opGet, "busy", 1, time.Microsecond, false)
	}
	all := many.all()
	var sum, errs, busy uint64
	for _, n := range all {
		sum += n.Read.Calls
		errs += n.Read.Errors
		if n.Namespace == "busy" {
			busy = n.Read.Calls
		}
	}
	if len(all) > namespacesMax || sum != 20*namespacesMax || errs != 5*namespacesMax || busy != 10*namespacesMax || all[0].Namespace != Others {
		t.Errorf("%d namespaces, %d calls, %d errors, %d of the busy one, the first is %q", len(all), sum, errs, busy, all[0].Namespace)
	}
}

// Memory for long puts and for answers is bounded: what does not fit waits, and is refused if it
// never can.
func TestRoom(t *testing.T) {
	r := newRoom(100)
	one, two := r.connection(), r.connection()
	if _, err := one.take(t.Context(), 101); err == nil {
		t.Error("more than there is")
	}
	back, err := one.take(t.Context(), 50)
	must(t, err)
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := one.take(ended, 1); !errors.Is(err, errNoRoom) {
		t.Errorf("more than its share: %v", err)
	}
	other, err := two.take(t.Context(), 50)
	must(t, err)
	back()
	back, err = one.take(ended, 50)
	if err == nil {
		back()
	}
	other()
	whole, err := one.take(t.Context(), 100)
	must(t, err)
	whole()
}

// Puts whose parts do not fit together are refused, and hold nothing.
func TestParts(t *testing.T) {
	r := newRoom(1000)
	h := &holds{room: r.connection(), by: make(map[uint64]*hold)}
	must(t, h.put(t.Context(), part{1, 100, 0}, make([]byte, 60)))
	for _, p := range []part{{1, 100, 50}, {2, 100, 10}, {3, 100, 0}} {
		if err := h.put(t.Context(), p, make([]byte, 101)); err == nil {
			t.Errorf("%+v", p)
		}
	}
	must(t, h.put(t.Context(), part{4, 200, 0}, make([]byte, 100)))
	if err := h.put(t.Context(), part{4, 200, 0}, make([]byte, 100)); !errors.Is(err, errBytes) {
		t.Errorf("a number that is used twice: %v", err)
	}
	d, err := h.take(4)
	must(t, err)
	d.back()
	if _, err := h.take(4); !errors.Is(err, errNotHeld) {
		t.Error(err)
	}
	if !r.all.TryAcquire(1000) {
		t.Error("memory is lost")
	}
}
