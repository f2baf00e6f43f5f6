package arakoon

import (
	"context"
	"errors"
	"sync"
	"testing"

	"openvstorage/arakoon/state"
	"openvstorage/internal/disk/crashdisk"
)

// Whatever is under way when a node ends, of its own or closed, is answered once, and
// nothing is taken after it.
func TestProposalsAreAnsweredOnce(t *testing.T) {
	why := errors.New("why")
	named := func() *proposal {
		return &proposal{command: state.Command{Body: []byte("body")}, done: make(chan answer, 1)}
	}
	outcome := state.Outcome{Index: 7}
	for name, c := range map[string]struct {
		do   func(s *proposals, p *proposal)
		want error
	}{
		"applied": {func(s *proposals, p *proposal) {
			s.answer(state.Applied{Number: 1, Outcomes: []state.Outcome{outcome}})
		}, nil},
		"dropped":         {func(s *proposals, _ *proposal) { s.drop(why) }, why},
		"refused by raft": {func(s *proposals, p *proposal) { s.refuse(1, []*proposal{p}, why) }, why},
		"applied while it closes": {func(s *proposals, _ *proposal) {
			s.end(why)
			s.answer(state.Applied{Number: 1, Outcomes: []state.Outcome{outcome}})
		}, nil},
	} {
		s := &proposals{most: 1, mostBytes: 1, batches: map[uint64][]*proposal{}}
		p := named()
		if err := s.admit(p); err != nil {
			t.Fatalf("%s: one is taken, however long it is: %v", name, err)
		}
		if err := s.admit(named()); !errors.Is(err, ErrBusy) {
			t.Errorf("%s: a second one: %v", name, err)
		}
		if !s.expect(1, []*proposal{p}) {
			t.Fatalf("%s: not expected", name)
		}
		c.do(s, p)
		s.drop(errors.New("answered twice")) // would block on the channel, which has room for one
		if a := <-p.done; !errors.Is(a.err, c.want) || c.want == nil && a.outcome.Index != outcome.Index {
			t.Errorf("%s: %+v", name, a)
		}
		if n, bytes := s.usage(); n != 0 || bytes != 0 {
			t.Errorf("%s: %d proposals of %d bytes are under way", name, n, bytes)
		}
	}
	s := &proposals{most: 2, mostBytes: 100, batches: map[uint64][]*proposal{}}
	p := named()
	if err := s.admit(p); err != nil {
		t.Fatal(err)
	}
	s.end(ErrClosed)
	if err := s.admit(named()); !errors.Is(err, ErrClosed) {
		t.Errorf("admitted after the end: %v", err)
	}
	if s.expect(1, []*proposal{p}) {
		t.Error("handed on after the end")
	}
	if a := <-p.done; !errors.Is(a.err, ErrUnknownOutcome) || !errors.Is(a.err, ErrClosed) {
		t.Error(a.err)
	}
}

// A node that fails while it is used and closed at once tells everybody, and Close says
// why it had failed.
func TestFailureBesideClose(t *testing.T) {
	bad := errors.New("bad")
	for range 20 {
		n := open(t, testOptions(crashdisk.New()))
		var users sync.WaitGroup
		for range 4 {
			users.Go(func() {
				for {
					if _, err := n.Do(context.Background(), new(Sequence).Set([]byte("k"), []byte("v"))); err != nil {
						return
					}
					if _, err := n.Get(context.Background(), Consistent, []byte("k")); err != nil {
						return
					}
				}
			})
		}
		users.Go(func() { n.end.run(func() { panic(bad.Error()) }) })
		<-n.Failed()
		if err := n.Close(); !errors.Is(err, ErrFailed) {
			t.Error(err)
		}
		users.Wait()
		if _, err := n.end.hold(); !errors.Is(err, ErrFailed) {
			t.Errorf("held after the end: %v", err)
		}
	}
}
